"""The methods text says what a workflow does, and nothing else."""

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from bids_brainage.workflows import bold, cbv, native, spaces, start
from bids_brainage.workflows.participant import methods_text


def literate(name, text, *inner):
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = text
    workflow.add_nodes([pe.Node(niu.IdentityInterface(['x']), name='x'), *inner])
    return workflow


def test_each_paragraph_stands_once_in_the_order_of_the_data():
    read, again = (literate(name, 'Read.\n\n') for name in ('z_wf', 'a_wf'))
    whole = literate('run', None, read, again, literate('b_wf', None, literate('c', 'Said.\n\n')))
    assert methods_text(whole) == 'Read.\n\nSaid.'
    second = literate('a_wf', 'Predicted.\n\n')
    first = literate('z_wf', 'Registered.\n\n')
    whole = literate('run', None, second, first)
    whole.connect([(first, second, [('x.x', 'x.x')])])
    assert methods_text(whole) == 'Registered.\n\nPredicted.'


def test_every_paragraph_ends_with_an_empty_line():
    texts = (
        *(bold.METHODS, bold.METHODS_FMRIPREP, bold.METHODS_CONNECTIVITY, cbv.GIVEN),
        *(cbv.GENERATED, native.THICK_METHODS, spaces.METHODS, start.REGIONS_METHODS),
    )
    assert all(text.endswith('.\n\n') for text in texts)
