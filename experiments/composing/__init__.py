"""From words of the command line to a cell and the parts it is built from."""
