"""A language field with numpy alone: python examples/read_language_field.py out/demo/language.safetensors

The file: 8 bytes n (little-endian), n bytes of JSON, then the arrays that the JSON describes.
Level l of Gaussian i is the vector sum_k weights[i, l, k] * atoms[l, indices[i, l, k]].
"""

import json
import sys

import numpy as np

KINDS = {"F16": "<f2", "F32": "<f4", "U8": "u1"}
content = np.memmap(sys.argv[1], np.uint8, "r")
size = int(content[:8].view("<u8")[0])
header = json.loads(content[8 : 8 + size].tobytes())
about = header.pop("__metadata__")
assert about["format"] == "dictsplat.language", "not a language field"
assert about["version"] == "1", "a version that this program does not know"
arrays = {}
for name, one in header.items():
    first, last = one["data_offsets"]
    arrays[name] = content[8 + size + first : 8 + size + last].view(KINDS[one["dtype"]]).reshape(one["shape"])
atoms, indices, weights = arrays["atoms"], arrays["indices"], arrays["weights"]
print(f"{len(indices):,} Gaussians, {about['encoder']}, levels {', '.join(json.loads(about['levels']))}")
for level, dictionary in enumerate(atoms):
    used = np.bincount(indices[:, level][weights[:, level] != 0], minlength=len(dictionary))
    first = (weights[0, level, :, None].astype(np.float32) * dictionary[indices[0, level]]).sum(0)
    length = float(np.linalg.norm(first))
    print(f"level {level}: {(used > 0).sum()} of {len(dictionary)} atoms used, first feature of length {length:.3f}")
