"""Compiles a CUDA source to PTX with NVRTC, which needs neither a GPU nor a toolkit.

usage: kernels.py LIBNVRTC FOLDER SOURCE ARCHITECTURE... > PTX

Prints the PTX of the first architecture; the others are compiled for their errors.
FOLDER holds what SOURCE includes.
"""

import ctypes
import pathlib
import sys


def compile_ptx(nvrtc, folder, source, architecture):
    """The PTX of one architecture; ends the program with the compiler's words."""

    def call(name, *arguments):
        status = getattr(nvrtc, name)(*arguments)
        if status != 0:
            sys.exit(f"error: {name} answered {status}: {nvrtc.nvrtcGetErrorString(status).decode()}")

    def text(size_of, get):
        size = ctypes.c_size_t()
        call(size_of, program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        call(get, program, buffer)
        return buffer.value.decode()

    program = ctypes.c_void_p()
    code = (folder / source).read_bytes()
    call("nvrtcCreateProgram", ctypes.byref(program), code, source.encode(), 0, None, None)
    options = [f"--gpu-architecture={architecture}", "--std=c++17", f"--include-path={folder}"]
    values = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), values)
    log = text("nvrtcGetProgramLogSize", "nvrtcGetProgramLog").strip()
    if status != 0 or log:
        # Warnings are errors: nobody reads them otherwise.
        sys.exit(f"error: {source} for {architecture}:\n{log}")
    return text("nvrtcGetPTXSize", "nvrtcGetPTX")


def main():
    library, folder, source, first, *others = sys.argv[1:]
    nvrtc = ctypes.CDLL(library)
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    folder = pathlib.Path(folder)
    ptx = compile_ptx(nvrtc, folder, source, first)
    for architecture in others:
        compile_ptx(nvrtc, folder, source, architecture)
    # The build number of the compiler says nothing about the code.
    lines = [line for line in ptx.splitlines() if not line.startswith("// Compiler Build ID")]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
