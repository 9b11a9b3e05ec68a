"""`specdec demo`: real servers, real requests, one table.

prompts.py cuts the prompts, servers.py starts and stops a server, load.py sends the requests, acceptance.py takes its
figures out of /metrics, runner.py puts all in order, report.py computes what is reported, page.py and table.py show it.
"""
