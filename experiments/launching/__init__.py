"""Cells on other hosts: what a job runs there, how jobs are followed to their end, and the engines that take them.

Hydra finds the launchers in ``hydra_plugins``; ``conf/hydra/launcher`` has what each is asked for.
"""
