"""Programs that run inside a side environment, in a process of their own, by their path.

Called as `python PROGRAM REQUEST.json ANSWER.json`; they import nothing of this project.
"""
