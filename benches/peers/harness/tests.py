"""What the harness makes of runs: `python3 -m unittest harness.tests`, from the folder above."""

import unittest
from xml.etree import ElementTree

from . import drain, figures, installed, main, plot, table
from .drain import Run
from .processes import Child, Failed, run


def a_run(system, rate, setting="fast", kind="http", **more):
    return Run(system, setting, kind, ran=100, jobs=100, rate=rate, seconds=1.0, **more)


def a_result(runs):
    result = main.Result({"jobs": 100, "runs": 3, "limit": 60}, installed.versions(), {"pg-boss": "no npm"}, runs=runs)
    result.machine = {"postgres": "15", "cores": 2, "processor": "a", "load_least": 0.0, "load_most": 1.0}
    return result


class Figures(unittest.TestCase):
    def test_are_the_median_of_the_runs_with_least_and_most(self):
        (figure,) = figures.of([a_run("pg-boss", rate) for rate in (300.0, 100.0, 120.0)])
        self.assertEqual((figure.rate, figure.least, figure.most), (120.0, 100.0, 300.0))

    def test_leave_out_void_runs_and_say_why(self):
        (figure,) = figures.of([a_run("pg-boss", 100.0), a_run("pg-boss", 900.0, void="3 jobs were run again")])
        self.assertEqual((figure.rate, figure.counted, figure.runs), (100.0, 1, 2))
        self.assertEqual(figure.void, ["3 jobs were run again"])

    def test_compare_with_turnwise_in_the_same_setting_and_kind(self):
        runs = [a_run("Turnwise", 1000.0), a_run("Turnwise", 100.0, "defaults"), a_run("pg-boss", 500.0)]
        runs += [a_run("pg-boss", 200.0, "defaults"), a_run("pg-boss", 10.0, kind="none")]
        ratios = {(figure.system, figure.setting, figure.kind): figure.turnwise for figure in figures.of(runs)}
        self.assertEqual(ratios["pg-boss", "fast", "http"], 2.0)
        self.assertEqual(ratios["pg-boss", "defaults", "http"], 0.5)
        self.assertIsNone(ratios["pg-boss", "fast", "none"])

    def test_of_nothing_that_counts_are_none(self):
        (figure,) = figures.of([a_run("pg-boss", None, void="it ended")])
        self.assertEqual((figure.rate, figure.least, figure.turnwise), (None, None, None))

    def test_say_when_the_target_was_the_limit(self):
        (busy,) = figures.of([a_run("pg-boss", 100.0, target_busy=0.9)])
        (calm,) = figures.of([a_run("pg-boss", 100.0, target_busy=0.3)])
        self.assertEqual((busy.near_ceiling, calm.near_ceiling), (True, False))

    def test_percentiles_are_values_that_came(self):
        values = [float(value) for value in range(100, 0, -1)]
        self.assertEqual((figures.percentile(values, 50), figures.percentile(values, 99)), (50.0, 99.0))
        self.assertEqual(figures.percentile([7.0], 99), 7.0)


class Judging(unittest.TestCase):
    def judged(self, **report):
        outcome = Run("pg-boss", "fast", "http", jobs=100)
        drain._judge(outcome, {"first": 2_000_000_000, "last": 4_000_000_000, **report}, 1_000_000_000)
        return outcome

    def test_a_run_is_timed_from_its_first_job_and_from_its_start(self):
        outcome = self.judged(count=100, distinct=100)
        self.assertIsNone(outcome.void)
        self.assertEqual((outcome.seconds, outcome.from_start, outcome.rate), (2.0, 3.0, 49.5))

    def test_a_run_that_repeats_jobs_is_void(self):
        self.assertEqual(self.judged(count=102, distinct=100).void, "2 jobs were run again")

    def test_a_run_that_was_ended_counts_as_far_as_it_came(self):
        outcome = self.judged(count=21, distinct=21)
        self.assertEqual((outcome.void, outcome.cut, outcome.rate), (None, True, 10.0))

    def test_a_run_of_one_job_has_no_rate(self):
        outcome = self.judged(count=1, distinct=1)
        self.assertEqual((outcome.rate, outcome.void), (None, "1 jobs were run within the limit"))


class Papers(unittest.TestCase):
    def test_the_tables_rank_each_setting_and_name_what_is_missing(self):
        runs = [a_run("Turnwise", 1000.0, target_busy=0.9), a_run("PgQueuer", 2000.0), a_run("apalis-postgres", 1.0)]
        text = table.report(a_result(runs))
        self.assertLess(text.index("| PgQueuer 1"), text.index("| Turnwise 0"))
        self.assertLess(text.index("| Turnwise 0"), text.index("| apalis-postgres 1"))
        self.assertIn("| 0.5 × |", text)
        self.assertIn("| 1,000 × |", text)
        self.assertIn("near its ceiling", text)
        self.assertIn("- pg-boss: no npm", text)

    def test_the_picture_has_a_bar_for_each_figure(self):
        runs = [a_run("Turnwise", 1000.0), a_run("PgQueuer", 0.5), a_run("PgQueuer", 3.0, kind="none")]
        picture = ElementTree.fromstring(plot.svg(figures.of(runs)))
        bars = picture.findall("{http://www.w3.org/2000/svg}rect")
        self.assertEqual([bar.get("class") for bar in bars], ["turnwise fast", "peer fast", "peer fast"])
        self.assertGreater(float(bars[0].get("width")), float(bars[1].get("width")))


class Programs(unittest.TestCase):
    def test_a_failure_names_the_program_its_end_and_its_last_words(self):
        with self.assertRaisesRegex(Failed, "sh ended with 3; its last words: away"):
            run(["sh", "-c", "echo away >&2; exit 3"], seconds=10)

    def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(self):
        with self.assertRaisesRegex(Failed, "took more than 1 s"):
            run(["sh", "-c", "sleep 60 & sleep 60"], seconds=1)

    def test_a_running_program_is_heard_line_by_line(self):
        child = Child(["cat"])
        try:
            child.say("one")
            self.assertEqual(child.line(10), "one")
        finally:
            child.stop()

    def test_every_version_is_pinned(self):
        self.assertTrue(all(installed.versions().values()))


if __name__ == "__main__":
    unittest.main()
