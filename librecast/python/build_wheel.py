"""Makes the wheel (PEP 517, PEP 427): the files of the package as they are, and their description."""
import base64
import hashlib
import pathlib
import re
import zipfile

HERE = pathlib.Path(__file__).parent
# the project's table has strings alone; tomllib is younger than the oldest Python
PROJECT = dict(re.findall(r'(?m)^([a-z-]+) = "(.*)"$', (HERE / "pyproject.toml").read_text().partition("[project]")[2]))
NAME = f"{PROJECT['name']}-{PROJECT['version']}"
METADATA = f"""Metadata-Version: 2.4
Name: {PROJECT['name']}
Version: {PROJECT['version']}
Summary: {PROJECT['description']}
Requires-Python: {PROJECT['requires-python']}
License-Expression: {PROJECT['license']}
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: librecast\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Writes the wheel into this folder, and returns its name."""
    files = {f"librecast/{path.name}": path.read_bytes()
             for path in sorted((HERE / "librecast").iterdir()) if path.suffix in {".py", ".typed"}}
    info = f"{NAME}.dist-info"
    files |= {f"{info}/METADATA": METADATA.encode(), f"{info}/WHEEL": WHEEL.encode()}
    record = ""
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        record += f"{name},sha256={digest},{len(data)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = f"{NAME}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            # the same sources give the same bytes: the time is the earliest of the format
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return wheel


def build_sdist(sdist_directory, config_settings=None):
    """Refuses: the sources are in the repository."""
    raise NotImplementedError("python3 -m pip install ./librecast/python")
