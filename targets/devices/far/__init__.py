"""The program at the far end of a connection: standard library only, Python 3.8 or newer.

It is sent as text and never installed; an older interpreter than the runner needs can so still
say which one it is. It imports nothing else of ours.
"""
