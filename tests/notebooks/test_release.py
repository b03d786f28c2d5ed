import nbformat.v4

from notebooks.exercises.release import student_version, without_answers

SOURCE = """\
def double(x):
    if x:
        ### BEGIN SOLUTION
        y = 2 * x
        return y
        ### END SOLUTION
    return 0


def half(x):
    ### BEGIN SOLUTION
    return x / 2
    ### END SOLUTION"""

RELEASED = """\
def double(x):
    if x:
        # YOUR CODE HERE
        raise NotImplementedError()
    return 0


def half(x):
    # YOUR CODE HERE
    raise NotImplementedError()"""


def test_each_solution_becomes_a_stub_as_deep_as_it_stood():
    assert without_answers(SOURCE) == RELEASED


def test_hidden_tests_go_and_visible_ones_stay():
    assert without_answers("assert a\n### BEGIN HIDDEN TESTS\nassert b\n### END HIDDEN TESTS\nassert c") == "assert a\nassert c"


def test_outputs_go_and_the_instructors_notebook_stays_as_it_is():
    cell = nbformat.v4.new_code_cell(SOURCE, outputs=[nbformat.v4.new_output("stream", text="2")], execution_count=3)
    text = nbformat.v4.new_markdown_cell("### BEGIN SOLUTION is how it is marked")
    source = nbformat.v4.new_notebook(cells=[text, cell])
    made = student_version(source)
    assert made.cells[0] == text
    assert made.cells[1].source == RELEASED and made.cells[1].outputs == [] and made.cells[1].execution_count is None
    assert cell.source == SOURCE and len(cell.outputs) == 1
