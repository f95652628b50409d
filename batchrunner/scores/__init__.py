"""How good answers are: scores of single answers, made of what a run has stored."""

from batchrunner.scores.measures import verdict
from batchrunner.scores.scorer import SCORES, Judgement, Judgements, Scorer, compile_scores

__all__ = ["compile_scores", "Judgement", "Judgements", "Scorer", "SCORES", "verdict"]
