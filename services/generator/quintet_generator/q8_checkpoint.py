"""Turns a GGUF model of four bits into what openvino-genai loads fast.

Read directly, such a file gives degraded answers: its integers don't survive the
engine's own format. The same weights in Q8_0, GGUF's eight bits, do.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize

from quintet_generator.gguf_checkpoint import write_description
from quintet_generator.model_files import Progress

_KEPT = (GGMLQuantizationType.F32, GGMLQuantizationType.F16)
_FILE_TYPE_Q8_0 = 7
"""`general.file_type` of a file whose tensors are mostly Q8_0 (llama.cpp's enum)."""


def convert(gguf_file: Path, folder: Path, progress: Progress) -> None:
    """Write the OpenVINO form of `gguf_file`, its tokenizer and its configuration, into
    `folder`. Some seven seconds for the packaged model."""
    with TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as scratch:
        requantised = Path(scratch) / "model.gguf"
        requantise(gguf_file, requantised, progress)
        _save_openvino(requantised)
        for file in sorted(Path(scratch).glob("openvino_model.*")):
            file.rename(folder / file.name)
    write_description(gguf_file, folder)
    _save_openvino_tokenizer(folder)


def requantise(source: Path, target: Path, progress: Progress) -> None:
    """Write `source` again with its quantised tensors in Q8_0."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, arch=reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue  # the writer's own
        if field.name == "general.file_type":
            writer.add_file_type(_FILE_TYPE_Q8_0)
            continue
        kind = field.types[0]
        item = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=item)
    for done, tensor in enumerate(reader.tensors, start=1):
        if tensor.tensor_type in _KEPT:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
        else:
            values = quantize(
                dequantize(tensor.data, tensor.tensor_type), GGMLQuantizationType.Q8_0
            )
            writer.add_tensor(tensor.name, values, raw_dtype=GGMLQuantizationType.Q8_0)
        progress(done, len(reader.tensors))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _save_openvino(gguf_file: Path) -> None:
    """Have the engine write openvino_model.xml and .bin beside the file: read from
    those it is loaded in half the time and half the memory."""
    import openvino_genai as genai

    scheduling = genai.SchedulerConfig()
    scheduling.num_kv_blocks = 1
    genai.ContinuousBatchingPipeline(
        str(gguf_file), scheduling, "CPU", {"enable_save_ov_model": True}
    )


def _save_openvino_tokenizer(folder: Path) -> None:
    """Write the tokenizer as the engine wants it to hold answers to a JSON schema."""
    import openvino
    import transformers  # noqa: F401 - the next import looks for it
    from openvino_tokenizers import convert_tokenizer
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    models = convert_tokenizer(tokenizer, with_detokenizer=True)
    for name, model in zip(("tokenizer", "detokenizer"), models, strict=True):
        openvino.save_model(model, folder / f"openvino_{name}.xml")
