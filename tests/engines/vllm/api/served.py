"""A server with two API processes, which vLLM starts by its `vllm` command alone: the same, without that command.

python -m tests.engines.vllm.api.served --model ... --api-server-count 2
"""


def main() -> None:
    from vllm.entrypoints.cli.serve import run_multi_api_server
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    args = make_arg_parser(FlexibleArgumentParser()).parse_args()
    validate_parsed_serve_args(args)
    run_multi_api_server(args)


if __name__ == "__main__":
    main()
