"""The README's Python runs, in order and in one namespace, and prints what its comments claim."""

import ast
import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def statements(block):
    """Each statement of a block as (code, claim): the comment behind a print is what it claims to print."""
    for node in ast.parse(block).body:
        code = ast.get_source_segment(block, node)
        behind = block.splitlines()[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
        yield code, behind.strip().removeprefix("#").strip() if code.startswith("print(") else None


def test_readme_prints_what_it_claims():
    namespace, claims = {}, 0
    for block in BLOCKS:
        for code, claim in statements(block):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
            if claim is not None:
                # After the claim a remark may follow, in parentheses or behind a colon.
                said = printed.getvalue().strip()
                assert said, f"prints nothing: {code}"
                assert re.fullmatch(re.escape(said) + r"( \(.*\)|: .*)?", claim), f"{code} prints {said}, not {claim}"
                claims += 1
    assert claims >= 10


def test_readme_begins_with_what_it_is_and_is_short():
    lines = README.splitlines()
    assert "backpropagate through sparse linear solves" in lines[0].lower()
    assert len(lines) <= 220


def test_every_link_of_the_documents_leads_somewhere():
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name} links to {target}"
