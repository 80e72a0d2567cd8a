"""The texts that several bundles are compared on: none of which chose any of them."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.source.corpus import load_evaluation
from exporter.source.splits import split_evaluation
from exporter.source.tokenizer import load_tokenizer
from exporter.steps.bundled import OpenBundle
from exporter.steps.texts import TokenizedEvaluation
from exporter.steps.workspace import Workspace
from exporter.values import EvaluationSet, model_facts
from targets.errors import TextsError, UsageError

BUILT_IN = "builtin"
_NAME_ONE = f"name one set for all of them with --eval ({BUILT_IN}: the built-in texts)"


def require_one_model(bundles: Sequence[OpenBundle]) -> None:
    """Refuse bundles of different models: their embeddings have nothing to do with each other.

    Raises:
        UsageError: names the two bundles and what differs.
    """
    first, *others = bundles
    mine = model_facts(first.report.model)
    for other in others:
        theirs = model_facts(other.report.model)
        differing = [name for name in mine if mine[name] != theirs[name]]
        if differing:
            raise UsageError(
                f"{first.name} and {other.name} are bundles of different models",
                why=f"{first.report.model.id} and {other.report.model.id} differ in: "
                + ", ".join(differing),
                hint="an index holds embeddings of one model: build it anew for another",
            )


def common_evaluation(work: Workspace, bundles: Sequence[OpenBundle]) -> TokenizedEvaluation:
    """Return the texts that certified all the bundles, or those that the user names.

    Raises:
        UsageError: the bundles were certified on different texts, or theirs are not here.
        TextsError: the texts cannot be read.
    """
    settings = work.settings
    with work.step("texts", "read and tokenize the evaluation texts"):
        if settings.eval is not None:
            source = None if settings.eval == BUILT_IN else settings.eval
            texts = _everything(source, settings.field)
        else:
            texts = _certifying(bundles)
        return _tokenized(bundles[0], texts)


def _tokenized(bundle: OpenBundle, texts: EvaluationSet) -> TokenizedEvaluation:
    tokenizer = load_tokenizer(bundle.spec)
    return TokenizedEvaluation(
        texts=texts,
        queries=tokenizer.encode(texts.queries),
        documents=tokenizer.encode(texts.documents),
    )


def _everything(source: str | None, field: str) -> EvaluationSet:
    return split_evaluation(load_evaluation(source, field=field), seed=0, choose=False).test


def _certifying(bundles: Sequence[OpenBundle]) -> EvaluationSet:
    """Make the bundles' own texts again.

    A bundle whose recipe was forced was certified on everything, others on their test split:
    the test split certifies both.
    """
    wanted = {bundle.report.evaluation.test.sha256 for bundle in bundles}
    whole, test = _sets_of(bundles[0])
    offered = {one.sha256 for one in (whole, test)}
    if not wanted <= offered:
        raise _cannot_agree(bundles, wanted)
    return whole if wanted == {whole.sha256} else test


def _sets_of(bundle: OpenBundle) -> tuple[EvaluationSet, EvaluationSet]:
    """Return everything and the test split of a bundle's source of texts."""
    settings = bundle.report.provenance.settings
    source = settings.get("eval", "None")
    try:
        found = load_evaluation(
            None if source == "None" else source, field=settings.get("field", "text")
        )
    except TextsError as error:
        raise TextsError(
            f"the texts that {bundle.name} was certified on cannot be read",
            why=error.what,
            hint=_NAME_ONE,
        ) from error
    seed = int(settings.get("seed", "0"))
    whole = split_evaluation(found, seed=seed, choose=False).test
    if bundle.report.evaluation.development is None:
        try:
            return whole, split_evaluation(found, seed=seed, choose=True).test
        except TextsError:  # too few to divide, so nobody was certified on a part
            return whole, whole
    return whole, split_evaluation(found, seed=seed, choose=True).test


def _cannot_agree(bundles: Sequence[OpenBundle], wanted: set[str]) -> UsageError:
    sets = {bundle.name: bundle.report.evaluation.test for bundle in bundles}
    described = "; ".join(
        f"{name}: {one.name} from {one.origin}, {one.num_texts} texts, sha256 {one.sha256[:12]}…"
        for name, one in sets.items()
    )
    if len(wanted) == 1:
        return UsageError(
            f"the texts that {bundles[0].name} was certified on are not here as they were",
            why=f"{described}; what is here has another hash",
            hint=_NAME_ONE,
        )
    return UsageError(
        "the bundles were certified on different evaluation sets", why=described, hint=_NAME_ONE
    )
