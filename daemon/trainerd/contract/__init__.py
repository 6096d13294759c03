"""What both halves agree on: names, paths, environment, heartbeat, exit codes, records.

The supervisor and a job may run different versions of trainerd in different virtual environments. They meet
only in what this package defines, so it needs the standard library alone and every file it defines carries
a format version.
"""
