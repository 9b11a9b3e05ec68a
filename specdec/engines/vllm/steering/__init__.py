"""Steering in vLLM, per request: from the settings and a request's program to every row of every step.

admission.py  in the API process: a request's program is checked, and written in its final form
cache_keys.py in the engine core: what the prefix cache may share between programs
scheduler.py  in the engine core: no more programs at once than the worker has places for
sources.py    the server's SAEs and vectors, and the catalog that requests are checked against
layers.py     in the worker: hooks on the decoder layers, and the operator behind them
programs.py   in the worker: which program has which place
rows.py       in the worker: before each step, every row's place
"""
