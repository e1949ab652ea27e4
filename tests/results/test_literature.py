"""What pieces cite is known by title and address."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from attribug.plugins import all_registries
from attribug.results.literature import CITATION, cited, works

PAPERS = {
    (kind, name): paper
    for kind, registry in all_registries().items()
    for name in registry.declared()
    if (paper := getattr(registry.get(name), "paper", ""))
}


@pytest.mark.parametrize(("kind", "name"), PAPERS)
def test_every_citation_is_known(kind: str, name: str) -> None:
    paper = PAPERS[kind, name]
    parts = list(cited(paper))
    assert "".join(part for part, _ in parts) == paper
    assert sum(work is not None for _, work in parts) == len(CITATION.findall(paper))


def test_works_have_titles_and_addresses() -> None:
    for citation, work in works().items():
        assert CITATION.fullmatch(citation), citation
        assert work.title
        assert not work.link or urlsplit(work.link).scheme == "https"
    assert len({work.title for work in works().values()}) == len(works())
    links = [work.link for work in works().values() if work.link]
    assert len(set(links)) == len(links)


def test_nothing_is_listed_that_nobody_cites() -> None:
    told = {work.citation for paper in PAPERS.values() for _, work in cited(paper) if work is not None}
    assert told == set(works())


def test_what_is_not_known_stays_text() -> None:
    parts = list(cited("Nobody et al. 1999, eq. 3; Bach et al. (2015): LRP"))
    assert [(part, None if work is None else work.citation) for part, work in parts] == [
        ("Nobody et al. 1999, eq. 3; ", None), ("Bach et al. (2015)", "Bach et al. 2015"), (": LRP", None),
    ]  # fmt: skip
