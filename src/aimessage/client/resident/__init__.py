"""The resident agent: a process that keeps link, session and vault warm for the commands of one identity.

`door` is what a command loads to ask it; `resident` is the process; `errands` is what they say to each other.
"""
