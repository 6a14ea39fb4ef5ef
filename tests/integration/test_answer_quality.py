"""What the shipped backend answers on real questions."""

from __future__ import annotations

from support.evaluation import evaluation_set, needs_evaluation_data

from bench.answer_quality import best_sentence, evaluate, load, scored
from evaluation.injection import cases, flagged
from evaluation.support import figures
from quintet_generator.extractive import ExtractiveBackend
from quintet_generator.settings import GeneratorSettings
from quintet_servicekit.executor import BoundedExecutor


@needs_evaluation_data
def test_support_tells_supported_sentences_from_others_and_from_altered_ones() -> None:
    found = figures(evaluation_set(""))
    # Measured: .982, .950, .974, .968 and .435.
    assert found.auc_shuffled > 0.97
    assert found.auc_altered > 0.92
    assert found.supported_kept > 0.95
    assert found.shuffled_flagged > 0.94
    assert found.altered_flagged > 0.35


@needs_evaluation_data
def test_published_attacks_are_mostly_found() -> None:
    attacks = cases(evaluation_set(""))
    # Measured: 57 of 75, 49 of 50.
    assert flagged([it.attack for it in attacks if it.kind == "text"]) > 0.7
    assert flagged([it.attack for it in attacks if it.kind == "code"]) > 0.9


@needs_evaluation_data
async def test_extractive_answers_contain_the_answer_far_more_often_than_the_floor() -> None:
    questions = load(evaluation_set("xquad32-dev"))[::4]
    held_out = [question for question in questions if question.held_out]
    executor = BoundedExecutor("extractive", threads=1, queue=1)
    backend = ExtractiveBackend(executor, sentences=GeneratorSettings().extractive_sentences)
    answers = await evaluate(backend, held_out)
    await executor.close()
    single = scored(held_out, [best_sentence(question) for question in held_out], 0)
    # The sentence of BM25's first paragraph that overlaps the question most: .726.
    # Measured on all held-out questions: .925 and .800. Wide, for it is a sample.
    assert answers.contained > 0.84
    assert single.contained > 0.73
