"""Every mutant can still be made; whether the tests notice it, `python tests/mutants.py` finds out."""

import ast

import mutants
import pytest


@pytest.mark.parametrize("number", range(len(mutants.MUTANTS)))
def test_a_mutant_can_be_made(number):
  mutant = mutants.MUTANTS[number]
  assert mutants.find_problem(mutant, mutants.CHECKOUT) == ""
  before = (mutants.CHECKOUT / "gid_jax" / mutant.path).read_text()
  after = ast.parse(before.replace(mutant.old, mutant.new))  # Python still, or any test would notice
  assert ast.dump(after) != ast.dump(ast.parse(before))


def test_no_mutant_is_there_twice():
  made = [(mutant.path, mutant.old, mutant.new) for mutant in mutants.MUTANTS]
  assert len(set(made)) == len(made) >= 20


def test_a_mutant_without_its_text_is_a_problem():
  real = mutants.MUTANTS[0]
  for broken, problem in (
    (real._replace(old="no such text"), "0 times, not once"),
    (real._replace(old="import"), "times, not once"),
    (real._replace(path="absent.py"), "there is no gid_jax/absent.py"),
    (real._replace(tests=("absent",)), "there is no tests/test_absent.py"),
  ):
    assert problem in mutants.find_problem(broken, mutants.CHECKOUT)
