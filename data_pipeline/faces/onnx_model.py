"""A model's file -> an onnxruntime session on the CPU."""

import os
import pathlib
from typing import Any


def open_session(path: str | os.PathLike, threads: int = 1) -> Any:
  """Opens a model. onnxruntime is imported here, and nowhere else.

  From 1.32 on it keeps a device id and a database of events in the user's
  cache, to be sent away, unless it is told not to before it is imported.
  Nothing runs at the import of this module, so it cannot be told there.

  Args:
    path: an ONNX file.
    threads: that compute at the same time.

  Raises:
    ValueError: it is no model that onnxruntime can run.
  """
  os.environ['ORT_DISABLE_TELEMETRY'] = '1'
  import onnxruntime
  from onnxruntime.capi import onnxruntime_pybind11_state as errors

  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads
  options.inter_op_num_threads = 1
  options.log_severity_level = 3  # errors
  # A plan of where every tensor lies costs 14 MiB for the two embedded models
  # and saves no time.
  options.enable_mem_pattern = False
  try:
    return onnxruntime.InferenceSession(
      str(path), options, providers=['CPUExecutionProvider']
    )
  except (
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NoSuchFile,
    errors.NotImplemented,
  ) as error:
    said = str(error).split(':')[-1].strip()
    raise ValueError(
      f'{path}: not an ONNX model that can be run '
      f'({pathlib.Path(path).stat().st_size} bytes; onnxruntime says: {said})'
      if pathlib.Path(path).is_file()
      else f'{path}: no such file'
    ) from error
