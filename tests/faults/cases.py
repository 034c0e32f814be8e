"""All fault cases, by name."""

from tests.faults import cases_of_data, cases_of_driving_data, cases_of_files, cases_of_values
from tests.faults.harness import Case

CASES: dict[str, Case] = {
    **cases_of_values.CASES,
    **cases_of_files.CASES,
    **cases_of_data.CASES,
    **cases_of_driving_data.CASES,
}
