"""Reads program files as data: nothing in them is unpickled, imported, evaluated or loaded as a library.

torch.export.load trusts a file: it unpickles, loads libraries, evaluates expressions and calls functions that
the file names. So the file is opened (`archive`), its JSON read by type (`schema`) with a rule for every text
in it (`text`, `expressions`, `containers`, `operators`) and its tensors made (`tensors`) here; torch gets
nothing of the file but what was checked (`reader`).
"""

from .archive import MANIFEST, Archive, open_archive
from .reader import check_descriptions, read_program
from .writer import write_program

__all__ = ["MANIFEST", "Archive", "check_descriptions", "open_archive", "read_program", "write_program"]
