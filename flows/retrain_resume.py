"""With which configuration the waiting run of a batch goes on.

After an approval it is the configuration of that run: the decision is about its results. After
people's answers nothing was trained or measured yet, and another batch may have been promoted
meanwhile. A version replaces only the champion that it was compared with, so the opponents are
looked up again. Everything on which the answers depend stays.
"""

from flows.retrain_exam import WithExam
from flows.run_record import RunRecord
from pvar.retrain_decision import RetrainConfig
from tasks.retraining.exams import Exam
from tasks.stages.annotate import ANNOTATE


def waits_for_answers(run: RunRecord) -> bool:
    """Whether the run waits for people's answers about pairs."""
    return run.waiting_node is not None and run.waiting_node.name == ANNOTATE.name


def resumed(waiting: RunRecord, proposed: Exam | None, config: RetrainConfig) -> WithExam:
    """The configuration with which a waiting run goes on, and the exam that it proposed.

    The opponents of the policy and of the reward model are those of this retraining, to be pinned
    when the run starts.
    """
    pipeline = waiting.config
    if not waits_for_answers(waiting):
        return WithExam(pipeline, proposed)
    opponent = config.pipeline.evaluate.opponent
    update: dict[str, object] = {
        "evaluate": pipeline.evaluate.model_copy(update={"opponent": opponent})
    }
    training, wanted = pipeline.reward_training, config.pipeline.reward_training
    if training is not None and wanted is not None:
        update["reward_training"] = training.model_copy(update={"opponent": wanted.opponent})
    return WithExam(pipeline.model_copy(update=update), proposed)
