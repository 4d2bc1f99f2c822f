import os

__version__: str

class Error(RuntimeError): ...

class Recorder:
    def __new__(
        cls,
        path: str | os.PathLike[str],
        helper: list[str],
        *,
        force: bool,
        native: bool,
        python: bool,
        sources: bool,
    ) -> Recorder: ...
    def mark(self, name: str) -> bool: ...
    def stop(self) -> dict[str, object]: ...

def main(helper: list[str], arguments: list[str]) -> int: ...
def rounds(path: str | os.PathLike[str], prefix: str) -> str: ...
