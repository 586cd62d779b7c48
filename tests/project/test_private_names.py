"""Names of other packages on which this one relies although nobody promises them.

A new version that lacks one fails here, by name, not in the middle of a run.  The upper bounds
in ``setup.py`` go up when these tests have passed.
"""

import argparse
import inspect
from concurrent.futures import ProcessPoolExecutor

import pytest
from nipype.interfaces.base import BaseInterface, SimpleInterface
from nipype.pipeline import plugins
from nipype.pipeline.engine import Workflow
from nipype.pipeline.plugins.base import DistributedPluginBase, SGELikeBatchManagerBase
from nipype.pipeline.plugins.multiproc import MultiProcPlugin
from niworkflows.interfaces.bids import DerivativesDataSink
from torch.nn.modules import batchnorm

from bids_brainage.workflows.plugin import SUBMITTERS

SINK = DerivativesDataSink(desc='brain', Type='Brain')


@pytest.mark.parametrize(
    ('owner', 'name'),
    [
        (BaseInterface, '_always_run'),
        (BaseInterface, '_run_interface'),
        (BaseInterface, '_list_outputs'),
        (SimpleInterface(), '_results'),
        (Workflow('any'), '_graph'),
        (DistributedPluginBase, '_report_crash'),
        (SGELikeBatchManagerBase('any'), '_pending'),
        (MultiProcPlugin, '_async_callback'),
        (MultiProcPlugin, '_send_procs_to_workers'),
        (MultiProcPlugin, '_sort_jobs'),
        (SINK, '_config_entities'),
        (SINK, '_static_traits'),
        (SINK, '_metadata'),
        (SINK, '_results'),
        (argparse.ArgumentParser(), '_actions'),
        (batchnorm, '_BatchNorm'),
    ],
)
def test_private_name_is_there(owner, name):
    assert hasattr(owner, name)


def test_methods_that_are_overridden_are_called_as_before():
    def takes(method):
        return list(inspect.signature(method).parameters)

    assert takes(DistributedPluginBase._report_crash) == ['self', 'node', 'result']
    assert takes(MultiProcPlugin._async_callback) == ['self', 'args']
    assert takes(MultiProcPlugin._sort_jobs)[:2] == ['self', 'jobids']
    assert takes(SimpleInterface._run_interface) == ['self', 'runtime']
    assert SINK._metadata == {'Type': 'Brain'}
    for name in SUBMITTERS:
        assert issubclass(getattr(plugins, f'{name}Plugin'), SGELikeBatchManagerBase)


def test_workers_of_a_pool_can_be_killed():
    with ProcessPoolExecutor(1) as pool:
        assert pool.submit(abs, -1).result() == 1
        (worker,) = pool._processes.values()
        assert worker.is_alive()
