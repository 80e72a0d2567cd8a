"""Development and test splits that share nothing (the proof is in `disjoint`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from exporter.source.disjoint import assert_disjoint, evaluation_texts
from exporter.source.evaluation_sets import (
    EvaluationSources,
    join_notes,
    select_pairs,
    select_retrieval,
    select_texts,
)
from exporter.source.sampling import seeded_rank
from exporter.source.text_lines import normalize_text
from exporter.values import EvaluationSet, EvaluationSplits, Judgements
from targets.errors import TextsError

__all__ = ["assert_disjoint", "evaluation_texts", "split_evaluation"]

_DEV_SHARE = 0.3


def split_evaluation(
    sources: EvaluationSources,
    *,
    seed: int,
    choose: bool,
    max_dev_queries: int = 250,
    max_dev_documents: int = 1500,
) -> EvaluationSplits:
    """Divide evaluation texts into a split that chooses and a split that certifies.

    30 % go to development, at most `max_dev_queries` queries or `max_dev_documents` texts;
    no normalized query, pair text or plain text is in both. A user's retrieval set is one
    index: both splits search it, development only a part of it (all documents relevant to
    its queries, and a seeded sample of the others). Where the source ships a development
    split, that one is used, within the same limits.

    Args:
        sources: what `load_evaluation` returned.
        seed: decides the division; the same seed and texts always give the same.
        choose: False where the user forced one recipe: nothing is chosen, all certifies.
        max_dev_queries: limit of development queries.
        max_dev_documents: limit of development documents (relevant ones always stay).

    Raises:
        TextsError: if there is too little to divide.
    """
    everything = sources.all_or_test
    if not choose:
        return EvaluationSplits(dev=None, test=everything, shared_documents=False)
    if everything.kind == "pairs":
        return _split_pairs(everything, seed, max_dev_documents // 2)
    if everything.kind == "texts":
        return _split_texts(everything, seed, max_dev_documents)
    if sources.own_documents:
        return _split_with_documents(everything, seed, max_dev_queries)
    if sources.dev is not None:
        return _use_shipped_dev(sources.dev, everything, seed, max_dev_queries, max_dev_documents)
    return _split_queries(everything, seed, max_dev_queries, max_dev_documents)


# ---------------------------------------------------------------------------- retrieval


def _split_with_documents(
    everything: EvaluationSet, seed: int, max_dev_queries: int
) -> EvaluationSplits:
    """Divide queries, and give each query's documents to its split."""
    dev_queries = _dev_queries(everything, seed, max_dev_queries)
    dev_documents = _relevant_documents(everything, dev_queries)
    return EvaluationSplits(
        dev=select_retrieval(
            everything,
            queries=dev_queries,
            documents=dev_documents,
            split="dev",
            note=everything.note,
        ),
        test=select_retrieval(
            everything,
            queries=_others(dev_queries, len(everything.queries)),
            documents=_others(dev_documents, len(everything.documents)),
            split="test",
            note=everything.note,
        ),
        shared_documents=False,
    )


def _split_queries(
    everything: EvaluationSet, seed: int, max_dev_queries: int, max_dev_documents: int
) -> EvaluationSplits:
    """Divide the queries of one index."""
    dev_queries = _dev_queries(everything, seed, max_dev_queries)
    test_queries = _others(dev_queries, len(everything.queries))
    all_documents = range(len(everything.documents))
    test = select_retrieval(
        everything,
        queries=test_queries,
        documents=all_documents,
        split="test",
        note=everything.note,
    )
    return _over_one_index(everything, dev_queries, test, "", seed, max_dev_documents)


def _use_shipped_dev(
    dev: EvaluationSet, test: EvaluationSet, seed: int, max_dev_queries: int, max_dev_documents: int
) -> EvaluationSplits:
    """Take the source's own development queries, without those that are in test."""
    in_test = {normalize_text(query) for query in test.queries}
    own = [i for i, query in enumerate(dev.queries) if normalize_text(query) not in in_test]
    if not own:
        raise TextsError(
            f"{dev.origin} has no development query that is not a test query too",
            why="the split that chooses must not certify",
            hint="remove qrels/dev.tsv (then the test queries are divided), or force one recipe "
            "with --precision",
        )
    chosen = sorted(_lowest_ranks(dev.query_ids, own, seed, "shipped queries", max_dev_queries))
    repeated = len(dev.queries) - len(own)
    note = join_notes(
        f"the source's own development split, {len(chosen)} of {len(dev.queries)} queries",
        f"left out because they are test queries too: {repeated}" if repeated else "",
    )
    return _over_one_index(dev, chosen, test, note, seed, max_dev_documents)


def _over_one_index(
    source: EvaluationSet,
    dev_queries: Sequence[int],
    test: EvaluationSet,
    note: str,
    seed: int,
    max_dev_documents: int,
) -> EvaluationSplits:
    dev_documents = _dev_documents(source, dev_queries, seed, max_dev_documents)
    shared = (
        "development and test queries are different but search one index: test all "
        f"{len(test.documents)} documents, development {len(dev_documents)} of them"
    )
    dev = select_retrieval(
        source,
        queries=dev_queries,
        documents=dev_documents,
        split="dev",
        note=join_notes(source.note, note, shared),
    )
    return EvaluationSplits(
        dev=dev, test=replace(test, note=join_notes(test.note, shared)), shared_documents=True
    )


def _dev_queries(everything: EvaluationSet, seed: int, limit: int) -> list[int]:
    """Choose development queries; queries of one normalized text stay together."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for i, query in enumerate(everything.queries):
        groups[normalize_text(query)].append(i)
    return _fill(groups, seed, "queries", len(everything.queries), limit, everything)


def _dev_documents(
    source: EvaluationSet, queries: Sequence[int], seed: int, limit: int
) -> list[int]:
    relevant = _relevant_documents(source, queries)
    others = _others(relevant, len(source.documents))
    free = max(0, limit - len(relevant))
    return sorted([*relevant, *_lowest_ranks(source.document_ids, others, seed, "index", free)])


def _relevant_documents(source: EvaluationSet, queries: Sequence[int]) -> list[int]:
    chosen = set(queries)
    labels = _judgements(source)
    rows = zip(labels.query.tolist(), labels.document.tolist(), strict=True)
    return sorted({document for query, document in rows if query in chosen})


def _judgements(source: EvaluationSet) -> Judgements:
    if source.judgements is None:
        raise ValueError("a retrieval set needs judgements")
    return source.judgements


# ---------------------------------------------------------------- pairs and plain texts


def _split_pairs(everything: EvaluationSet, seed: int, limit: int) -> EvaluationSplits:
    """Divide pairs; pairs that hang together by a common text stay together."""
    groups = _connected_pairs(everything)
    num_pairs = sum(map(len, groups.values()))
    dev = _fill(groups, seed, "pairs", num_pairs, limit, everything)
    test = _others(dev, num_pairs)
    return EvaluationSplits(
        dev=select_pairs(everything, pairs=dev, split="dev", note=everything.note),
        test=select_pairs(everything, pairs=test, split="test", note=everything.note),
        shared_documents=False,
    )


def _connected_pairs(everything: EvaluationSet) -> dict[str, list[int]]:
    """Group pairs into the connected components of the graph whose nodes are texts."""
    if everything.pairs is None:
        raise ValueError("a pairs set needs pairs")
    keys = [normalize_text(text) for text in everything.documents]
    edges = [
        (keys[first], keys[second])
        for first, second in zip(
            everything.pairs.first.tolist(), everything.pairs.second.tolist(), strict=True
        )
    ]
    parent = {key: key for key in keys}
    for first, second in edges:
        parent[_root(parent, first)] = _root(parent, second)
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for i, (first, _) in enumerate(edges):
        groups[_root(parent, first)].append(i)
    return groups


def _root(parent: dict[str, str], key: str) -> str:
    while parent[key] != key:
        parent[key] = parent[parent[key]]  # Path halving keeps later walks short.
        key = parent[key]
    return key


def _split_texts(everything: EvaluationSet, seed: int, limit: int) -> EvaluationSplits:
    """Divide plain texts; texts of one normalized form stay together."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(everything.documents):
        groups[normalize_text(text)].append(i)
    count = len(everything.documents)
    dev = _fill(groups, seed, "texts", count, limit, everything)
    return EvaluationSplits(
        dev=select_texts(everything, documents=dev, split="dev", note=everything.note),
        test=select_texts(
            everything, documents=_others(dev, count), split="test", note=everything.note
        ),
        shared_documents=False,
    )


# ------------------------------------------------------------------------ seeded choice


def _fill(
    groups: dict[str, list[int]],
    seed: int,
    what: str,
    count: int,
    limit: int,
    everything: EvaluationSet,
) -> list[int]:
    """Take whole groups in seeded order while they fit into development; the rest is test."""
    target = max(1, min(limit, int(_DEV_SHARE * count)))
    chosen: list[int] = []
    for key in sorted(groups, key=lambda key: seeded_rank(seed, what, key)):
        if len(chosen) + len(groups[key]) <= target:
            chosen += groups[key]
    if not chosen or len(chosen) == count:
        raise TextsError(
            f"{everything.origin} cannot be divided into a development and a test split",
            why=f"it has {count} {what} in {len(groups)} groups without a common text",
            hint="give more evaluation texts, or force one recipe with --precision: then all of "
            "them certify",
        )
    return sorted(chosen)


def _lowest_ranks(
    ids: Sequence[str], candidates: Iterable[int], seed: int, purpose: str, limit: int
) -> list[int]:
    return sorted(candidates, key=lambda i: seeded_rank(seed, purpose, ids[i]))[:limit]


def _others(chosen: Sequence[int], count: int) -> list[int]:
    taken = set(chosen)
    return [i for i in range(count) if i not in taken]
