"""Steering in vLLM, per request: from the settings and a request's program to every row of every step. And reading:
from those rows to the request's answer.

admission.py  in the API process: what a request asks for is checked, and written in its final form
cache_keys.py in the engine core: what the prefix cache may share between programs
scheduler.py  in the engine core: no more programs at once than the worker has places for; readings of emitted tokens
sources.py    the server's SAEs and vectors, and the catalog that requests are checked against
layers.py     in the worker: hooks on the decoder layers, and the operator behind them
programs.py   in the worker: which program has which place
rows.py       in the worker: before each step, every row's place
readers.py    in the worker: which rows a step's requests read, and what they read there
route.py      how readings travel from the engine core to the API process
outputs.py    in the API process: readings on completions
openai.py     in the API server: readings in responses
"""
