"""A real H2O server trains, and what this process scores is what H2O itself predicts."""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import h2o
import pytest

from services.api.scoring.jvm import start_jvm
from services.api.scoring.mojo import MojoScorer
from services.api.scoring.vector import VectorEncoder
from services.contracts.flights import CATEGORICAL, FEATURES, FlightFeatures
from services.etl.splits import write_cover
from services.h2o import client
from services.h2o.ensemble import combine
from services.h2o.errors import PortInUse, TrainingRefused
from services.h2o.server import H2OServer, prepare
from services.h2o.specs import EnsembleSpec
from services.h2o.train import TrainedModel, train
from services.h2o.trained import BINARY, COMPARISON, Comparison
from services.registry import sha256_of
from tests.integration.conftest import free_port_pair
from tests.integration.h2o.flights_frame import FlightFiles
from tests.integration.h2o.single import NotStarted, running

pytestmark = pytest.mark.integration

ROWS = 1000
TOLERANCE = 1e-9


def vectors(path: Path, count: int) -> list[FlightFeatures]:
    """Rows of a file, some without weather, some with an airport and a carrier that no training saw."""
    with path.open(newline="") as lines:
        rows = [row for _, row in zip(range(count), csv.DictReader(lines), strict=False)]
    changes: dict[int, dict[str, object]] = {
        0: dict.fromkeys(("temp", "humid", "wind_speed", "precip", "pressure", "visib")),
        1: {"dest": "ZZZ", "carrier": "ZZ"},
        2: dict.fromkeys(("plane_year", "seats")),
    }
    return [
        FlightFeatures.model_validate({name: row[name] or None for name in FEATURES} | changes.get(number % 20, {}))
        for number, row in enumerate(rows)
    ]


def native_predictions(model_id: str, rows: list[FlightFeatures], directory: Path) -> list[tuple[bool, float]]:
    """What the server itself predicts with the model that it holds (not with a re-imported artifact)."""
    path = directory / "rows.csv"
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, FEATURES)
        writer.writeheader()
        writer.writerows(row.model_dump() for row in rows)
    types = {name: "enum" if name in CATEGORICAL else "real" for name in FEATURES}
    frame = h2o.upload_file(str(path), header=1, col_types=types)
    answer = h2o.get_model(model_id).predict(frame).as_data_frame(use_pandas=False, header=False)
    return [(late == "1", float(p1)) for late, _, p1 in answer]


def test_our_scores_are_h2os_own(
    h2o_server: H2OServer, flights: FlightFiles, genmodel_jar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as keep:  # what training would clean up is needed for the comparison
        keep.setattr(h2o, "remove", lambda _: None)
        trained = train(flights.train, flights.test, h2o_server.url, tmp_path, seed=3, version="v3")
    rows = vectors(flights.test, ROWS)
    h2o.connect(url=h2o_server.url, verbose=False)
    try:
        [model_id] = [key for key in h2o.ls()["key"] if key.startswith("breakwater_") and key.endswith("_model")]
        expected = native_predictions(model_id, rows, tmp_path)
    finally:
        h2o.remove_all()
        h2o.connection().close()
    start_jvm(genmodel_jar, 128)
    scorer = MojoScorer(trained.model_zip, trained.card)
    encoder = VectorEncoder(trained.card.features)
    scores = scorer.score([encoder.row(row) for row in rows])
    assert len(expected) == ROWS
    worst = max(abs(score.probability - p1) for score, (_, p1) in zip(scores, expected, strict=True))
    assert worst <= TOLERANCE
    assert [score.late for score in scores] == [late for late, _ in expected]
    assert len({score.probability for score in scores}) > ROWS / 2


def test_the_card_describes_the_artifact(trained: Mapping[str, TrainedModel]) -> None:
    card = trained["v1"].card
    assert card.sha256 == sha256_of(trained["v1"].model_zip)
    assert tuple(feature.name for feature in card.features) == FEATURES
    assert {feature.name for feature in card.features if feature.domain} == CATEGORICAL
    assert card.metrics.auc > 0.6
    assert card.window.train_end < card.window.test_start
    assert (trained["v1"].model_zip.parent / "model.json").read_text() == card.to_json()


def test_training_twice_gives_the_same_scores(
    trained: Mapping[str, TrainedModel],
    h2o_server: H2OServer,
    flights: FlightFiles,
    genmodel_jar: Path,
    tmp_path: Path,
) -> None:
    again = train(flights.train, flights.test, h2o_server.url, tmp_path, seed=1, version="v1")
    assert again.card.metrics == trained["v1"].card.metrics
    start_jvm(genmodel_jar, 128)
    encoder = VectorEncoder(again.card.features)
    rows = [encoder.row(row) for row in vectors(flights.test, 200)]
    first, second = (MojoScorer(model.model_zip, model.card).score(rows) for model in (trained["v1"], again))
    assert first == second


def test_training_data_that_overlap_in_time_are_refused(
    h2o_server: H2OServer, flights: FlightFiles, tmp_path: Path
) -> None:
    with pytest.raises(TrainingRefused, match="must end before testing starts"):
        train(flights.test, flights.train, h2o_server.url, tmp_path, seed=1, version="v1")


def test_a_file_without_a_feature_is_refused(h2o_server: H2OServer, flights: FlightFiles, tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv"
    broken.write_text(flights.train.read_text().replace("plane_year", "built", 1))
    with pytest.raises(TrainingRefused, match="lacks the columns plane_year"):
        train(broken, flights.test, h2o_server.url, tmp_path, seed=1, version="v1")


def test_the_server_listens_on_loopback_only(h2o_server: H2OServer) -> None:
    listening = subprocess.run(
        ["/usr/bin/ss", "-Hltnup"], check=True, capture_output=True, text=True, timeout=10
    ).stdout
    ports = {f":{h2o_server.port + offset}" for offset in (0, 1)}
    ours = [line.split()[4] for line in listening.splitlines() if line.split()[4].endswith(tuple(ports))]
    assert sorted(ours) == sorted(f"[::ffff:127.0.0.1]{port}" for port in ports)


def test_a_second_server_on_the_same_ports_is_refused(h2o_server: H2OServer, tmp_path: Path) -> None:
    with pytest.raises(PortInUse):
        prepare(H2OServer(directory=tmp_path, port=h2o_server.port, heap_mb=256))


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    broken = H2OServer(directory=tmp_path, port=free_port_pair(), heap_mb=1)
    with pytest.raises(NotStarted, match="Too small"), running(broken):
        pass


def test_another_release_of_the_client_is_refused(
    h2o_server: H2OServer, flights: FlightFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = h2o.__version__
    monkeypatch.setattr(h2o, "__version__", "3.40.0.1")
    with pytest.raises(
        TrainingRefused, match=rf"runs H2O {re.escape(release)}, another release than the client's 3\.40\.0\.1: "
    ):
        train(flights.train, flights.test, h2o_server.url, tmp_path, seed=1, version="v1")
    assert not list(tmp_path.iterdir())


def test_a_cloud_with_too_little_heap_is_refused_before_anything_is_uploaded(
    h2o_server: H2OServer, flights: FlightFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "HEAP_PER_BYTE", 10_000)
    with pytest.raises(TrainingRefused, match=r"need about \d+ MB of heap, the cloud at .* has \d+ MB: raise breakw"):
        train(flights.train, flights.test, h2o_server.url, tmp_path, seed=1, version="v1")


def test_the_ensemble_is_one_artifact_that_scores_as_h2o_does_and_knows_every_level(
    trained: Mapping[str, TrainedModel], h2o_server: H2OServer, flights: FlightFiles, genmodel_jar: Path, tmp_path: Path
) -> None:
    cover = tmp_path / "cover.csv"
    write_cover(flights.train, cover)
    known = flights.train.read_text().splitlines(keepends=True)
    # the first base never sees the carriers and airports that only later rows have
    (tmp_path / "early.csv").write_text("".join(known[: len(known) // 20]))
    bases = [
        train(path, flights.test, h2o_server.url, tmp_path / name, seed=1, version=name, cover_csv=cover)
        for name, path in (("early", tmp_path / "early.csv"), ("all", flights.train))
    ]
    assert destinations(tmp_path / "early.csv") < destinations(flights.train)
    rows = flights.test.read_text().splitlines(keepends=True)
    middle = len(rows) // 2
    (tmp_path / "blend.csv").write_text("".join(rows[:middle]))
    (tmp_path / "last.csv").write_text("".join([rows[0], *rows[middle:]]))
    window = trained["v1"].card.window
    spec = EnsembleSpec(
        bases=tuple(base.model_zip.with_name(BINARY) for base in bases),
        cover_csv=cover,
        blend_csv=tmp_path / "blend.csv",
        test_csv=tmp_path / "last.csv",
        serving=trained["v1"].model_zip,
        rows=trained["v1"].card.rows,
        window=window,
        prior=trained["v1"].card.metrics.prior,
        seed=1,
        version="e1",
    )
    ensemble = combine(spec, h2o_server.url, tmp_path / "out")
    start_jvm(genmodel_jar, 128)
    scorer, encoder = MojoScorer(ensemble.model_zip, ensemble.card), VectorEncoder(ensemble.card.features)
    inputs = [FlightFeatures.model_validate(row.features) for row in ensemble.golden.rows]
    scores = scorer.score([encoder.row(features) for features in inputs])
    worst = max(abs(s.probability - g.probability) for s, g in zip(scores, ensemble.golden.rows, strict=True))
    assert worst <= TOLERANCE
    assert ensemble.card.features == bases[0].card.features == trained["v1"].card.features
    comparison = Comparison.model_validate_json((tmp_path / "out" / COMPARISON).read_bytes())
    assert comparison.serving is not None
    assert ensemble.card.metrics.logloss < comparison.constant.logloss
    assert h2o_server_keys(h2o_server) == []


def destinations(path: Path) -> set[str]:
    with path.open(newline="") as lines:
        return {row["dest"] for row in csv.DictReader(lines)}


def h2o_server_keys(server: H2OServer) -> list[str]:
    """What trainings left on the server."""
    h2o.connect(url=server.url, verbose=False)
    try:
        return [key for key in h2o.ls()["key"] if "breakwater_" in key]
    finally:
        h2o.connection().close()


def test_an_ensemble_that_would_learn_from_its_test_is_refused(
    trained: Mapping[str, TrainedModel], h2o_server: H2OServer, flights: FlightFiles, tmp_path: Path
) -> None:
    window = trained["v1"].card.window
    leaking = window.model_copy(update={"train_end": window.test_start})
    spec = EnsembleSpec.model_construct(
        bases=(tmp_path / "none",), cover_csv=flights.test, blend_csv=flights.test, test_csv=flights.test,
        serving=None, rows=trained["v1"].card.rows, window=leaking, prior=0.2, seed=1, version="e1",
    )  # fmt: skip
    with pytest.raises(TrainingRefused, match="must end before testing starts"):
        combine(spec, h2o_server.url, tmp_path)
