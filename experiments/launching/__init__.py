"""Cells on other hosts: what a job runs there, how jobs are followed to their end, and the engines that take them.

A command registers the launchers with Hydra (``engines``); ``conf/hydra/launcher`` has what each is asked for.
"""
