"""The functional branch learns from connectivity where there is something to learn."""

import json

import connectivity_age as study
import numpy as np
import pytest

N_NODES = 12


@pytest.fixture(scope='module')
def people():
    """Twenty-four people whose first two blocks of regions separate with age."""
    rng = np.random.default_rng(0)
    age = np.linspace(20, 80, 24)
    lower = np.tril_indices(N_NODES, -1)
    block = np.arange(N_NODES) // 4
    within = (block[lower[0]] == block[lower[1]]).astype(float)
    young = (age[:, None] - 50) / 60
    vectors = 0.2 + 0.4 * within * young + rng.normal(0, 0.02, (24, len(lower[0])))
    return vectors, age


def test_lower_triangles_become_matrices():
    matrices = study.square(np.arange(1.0, 7.0)[None])
    assert matrices[0].tolist() == [[1, 1, 2, 4], [1, 1, 3, 5], [2, 3, 1, 6], [4, 5, 6, 1]]


def test_people_without_an_age_are_left_out(people, tmp_path):
    vectors, _ = people
    np.savez(tmp_path / 'a.npz', a=vectors[:3])
    (tmp_path / 'a.tsv').write_text('row\tage\n0\tn/a\n1\t31\n2\t45.5\n')
    matrices, ages = study.read_table(tmp_path / 'a.npz', tmp_path / 'a.tsv')
    assert ages.tolist() == [31, 45.5]
    assert matrices.shape == (2, N_NODES, N_NODES)
    assert matrices[0][1, 0] == vectors[1, 0]


def test_branch_and_ridge_find_a_known_effect(people):
    vectors, age = people
    matrices = study.square(vectors)
    plan = {'folds': 3, 'repeats': 1, 'seed': 0}
    median = study.cross_validate(matrices, age, study.fit_median, **plan)

    def fit(*given):  # stronger steps than published: a small test has few of them
        return study.fit_network(*given, epochs=40, learning_rate=2e-3)

    for method in (study.fit_ridge, fit):
        predicted = study.cross_validate(matrices, age, method, **plan)
        found = study.summary(age, predicted, median, 0)
        assert found['r'] > 0.8
        assert found['better_than_median_95'][0] > 0


def test_nobody_is_predicted_by_a_model_that_has_seen_them(people):
    vectors, age = people

    def nearest(train, train_age, test, seed):
        distance = np.abs(train[None] - test[:, None]).sum(axis=(2, 3))
        assert distance.min() > 0
        assert len(train_age) + len(test) == len(age)
        return train_age[distance.argmin(axis=1)]

    found = study.cross_validate(study.square(vectors), age, nearest, folds=5, repeats=2, seed=1)
    assert np.isfinite(found).all()


def test_command_prints_its_numbers(people, tmp_path, capsys, monkeypatch):
    vectors, age = people
    monkeypatch.setattr(study, 'fit_network', study.fit_ridge)
    np.savez(tmp_path / 'a.npz', a=vectors)
    rows = '\n'.join(f'{k}\t{value}' for k, value in enumerate(age))
    (tmp_path / 'a.tsv').write_text(f'row\tage\n{rows}\n')
    arguments = [str(tmp_path / 'a.npz'), str(tmp_path / 'a.tsv'), '--repeats', '1']
    assert study.main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed['ridge']['n'] == 24
    assert printed['median']['better_than_median'] == 0
