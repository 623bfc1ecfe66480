"""A real llama.cpp server with a tiny model of noise: a true AI service that is up in a second.

Needs the extra `demo` (`xllamacpp`, `gguf`, `numpy`). The model is written at run time: two layers, one
token per byte, and an output layer that leans to lower-case letters, so that its noise can be printed.
"""

import argparse
import asyncio
import importlib
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from hostler.kernel.errors import MissingExtraError, ServiceUnavailableError
from hostler.kernel.units import Seconds

ALIAS: Final = "noise"
"""Name of the model, as `/v1/models` lists it."""
WIDTH, LAYERS, HEADS, INNER = 64, 2, 4, 128
SPECIAL: Final = ("<unk>", "<s>", "</s>")
TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
START_LIMIT: Final[Seconds] = 30.0


def require_extra() -> None:
    """Raise `MissingExtraError` with the pip line unless llama.cpp can be run here."""
    for module in ("xllamacpp", "gguf", "numpy"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingExtraError(
                f"{module} is absent; run: pip install 'hostler[demo]'", extra="demo", module=module
            ) from error


def write_model(path: Path, *, context: int = 2048, seed: int = 7) -> Path:
    """Write the model as GGUF (about 500 KB) and return its path; the same seed writes the same weights."""
    numpy: Any = importlib.import_module("numpy")
    gguf: Any = importlib.import_module("gguf")
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    random: Any = numpy.random.default_rng(seed)

    def noise(*shape: int, scale: float = 0.05) -> Any:
        return (random.standard_normal(shape) * scale).astype(numpy.float32)

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name(ALIAS)
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3] + [6] * 256)  # unknown, control, control, bytes
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)

    # The first dimension is the same for every token: through it the output layer prefers letters.
    embedding = noise(len(tokens), WIDTH, scale=1.0)
    embedding[:, 0] = 8.0
    output = noise(len(tokens), WIDTH, scale=0.3)
    output[:, 0] = -2.0
    for byte in b"abcdefghijklmnopqrstuvwxyz":
        output[len(SPECIAL) + byte, 0] = 2.0
    output[len(SPECIAL) + ord(" "), 0] = 2.3
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", numpy.ones(WIDTH, dtype=numpy.float32))
    writer.add_tensor("output.weight", output)
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", numpy.ones(WIDTH, dtype=numpy.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", noise(WIDTH, WIDTH))
        writer.add_tensor(f"blk.{layer}.ffn_gate.weight", noise(INNER, WIDTH))
        writer.add_tensor(f"blk.{layer}.ffn_up.weight", noise(INNER, WIDTH))
        writer.add_tensor(f"blk.{layer}.ffn_down.weight", noise(WIDTH, INNER))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class LlamaServer:
    """A llama.cpp server in a child process on a free port; `async with` starts it, `url` says where it is.

    With `embeddings` it serves `/v1/embeddings` as well. The child ends with this process, however that ends.
    """

    def __init__(
        self,
        *,
        slots: int = 2,
        context: int = 2048,
        embeddings: bool = False,
        api_key: str | None = None,
        model: Path | None = None,
    ) -> None:
        """`context` is the number of tokens per slot; without `model` one is written to a temporary folder."""
        self.url = ""
        self.pid = 0
        self._slots, self._context, self._embeddings = slots, context, embeddings
        self._api_key = api_key
        self._model = model
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        require_extra()
        async with AsyncExitStack() as stack:
            model = self._model
            if model is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hostler-llama-"))
                model = await asyncio.to_thread(write_model, Path(folder) / "noise.gguf", context=self._context)
            arguments = [str(model), "--slots", str(self._slots), "--context", str(self._context)]
            if self._embeddings:
                arguments.append("--embeddings")
            environment = dict(os.environ)
            if self._api_key is not None:
                environment[KEY_VARIABLE] = self._api_key
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "hostler.testing.llama",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment,
            )
            stack.push_async_callback(_end, process)
            self.url = await self._address(process)
            self.pid = process.pid
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _address(self, process: asyncio.subprocess.Process) -> str:
        if process.stdout is None:
            raise ServiceUnavailableError("the llama.cpp child has no output")
        try:
            async with asyncio.timeout(START_LIMIT):
                while line := await process.stdout.readline():
                    if line.startswith(READY.encode()):
                        return line.decode().removeprefix(READY).strip()
        except TimeoutError:
            raise ServiceUnavailableError(f"llama.cpp did not start in {START_LIMIT:g} s") from None
        raise ServiceUnavailableError(f"llama.cpp did not start; its process ended with {await process.wait()}")


READY: Final = "listening "
KEY_VARIABLE: Final = "HOSTLER_LLAMA_KEY"


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()


def serve(model: str, *, slots: int, context: int, embeddings: bool) -> None:
    """Run the server in this process until standard input ends; the address goes to standard output."""
    xllamacpp: Any = importlib.import_module("xllamacpp")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.model_alias = {ALIAS}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_parallel = slots
    parameters.n_ctx = context * slots
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.endpoint_slots = True
    parameters.endpoint_metrics = True
    parameters.fit_params = False
    parameters.warmup = False
    parameters.embedding = embeddings
    if embeddings:
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    if key := os.environ.get(KEY_VARIABLE):
        parameters.api_keys = [key]
    server = xllamacpp.Server(parameters)
    sys.stdout.write(f"\n{READY}{server.listening_address}\n")
    sys.stdout.flush()
    while sys.stdin.buffer.read(4096):
        continue
    os._exit(0)  # the server's own threads never join


def main() -> None:
    """Run `python -m hostler.testing.llama MODEL`."""
    parser = argparse.ArgumentParser(description="A llama.cpp server that ends when its standard input does")
    parser.add_argument("model")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--embeddings", action="store_true")
    asked = parser.parse_args()
    serve(asked.model, slots=asked.slots, context=asked.context, embeddings=asked.embeddings)


if __name__ == "__main__":
    main()
