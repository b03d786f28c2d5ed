import pytest

from ch_delift.support.delift_options import Delift
from common.support.files import InputError


def test_with_hidden_states_our_own_arm_is_se_and_it_is_compared_with_the_others():
    assert (Delift().arm, Delift().others) == ("delift", ("random", "se", "full"))
    hidden = Delift(similarity="hidden")
    assert (hidden.arm, hidden.others) == ("se", ("random", "full"))


@pytest.mark.parametrize("more", [{"utility": "runs/old"}, {"kernel": "minmax"}])
def test_hidden_states_and_what_is_of_utilities_are_refused(more):
    with pytest.raises(InputError, match="--similarity hidden measures no utilities; leave --utility and --kernel out"):
        Delift(similarity="hidden", **more)
