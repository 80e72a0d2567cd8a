"""Build jobs of a fleet: which device is built where, with which commands, and what decides.

Every job is a list of this program's own commands, run one after the other in processes of
their own: what CI does can be read, and done by hand anywhere.
"""
