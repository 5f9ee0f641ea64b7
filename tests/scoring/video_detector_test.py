"""A video file gets the score of its record in a data set, and more."""

import json
import os
import pathlib
import random
import threading

import bright_faces
import handmade_onnx
import jax
import made_videos
import numpy as np
import pytest
from random_detector import make_detector

from configs import tiny
from data_pipeline import prepared_video, record_writer
from data_pipeline import records as records_lib
from data_pipeline.faces import backends
from data_pipeline.sources import catalogue
from data_pipeline.synthesis import blending
from stormer_jax import detector as detector_lib
from stormer_jax.scoring import (
  calibration,
  clip_scorer,
  evaluate,
  video_detector,
)
from tests.faces import scrfd_test


@pytest.fixture(scope='module')
def detector():
  return make_detector(tiny.get_config())


def _ready(detector, calibrated=None, **changes):
  options = evaluate.EvalConfig(**{**detector.config.eval, **changes})
  return video_detector.Detector(
    detector, options, calibrated, bright_faces.BrightFaces()
  )


def _predict(detector, video, **changes):
  return _ready(detector, **changes).predict(video)


def _separating(detector, **changes):
  """A detector that tells red squares from others."""
  ready = _ready(detector, _calibrated(detector), frame_rule='dense', **changes)
  ready._scorer = bright_faces.red_is_fake
  return ready


def _calibrated(detector, rule='dense', **changes):
  fields = {
    'method': 'platt',
    'slope': 1.0,
    'intercept': 0.0,
    'threshold': 0.5,
    'at_fpr': {'1': None},
    'uncertain': (0.4, 0.6),
    'frame_rule': rule,
    'weights': clip_scorer.weights_digest(detector),
    'fitted_on': 'faces:val',
    'num_real': 20,
    'num_fake': 20,
    'ece_before': 0.2,
    'ece_after': 0.1,
    'brier_before': 0.2,
    'brier_after': 0.1,
  }
  return calibration.Calibration(**{**fields, **changes})


@pytest.mark.parametrize(
  'changes', [{}, {'flip': True, 'margin': 5}, {'frame_rule': 'dense'}]
)
def test_a_file_scores_as_in_the_evaluation_of_its_data_set(
  detector, tmp_path, changes
):
  rule = changes.get('frame_rule', 'uniform')
  video = bright_faces.write_video(tmp_path / 'a.mp4', 70)
  listed = catalogue.Video(
    path='a.mp4', label=1, video_id='a', dataset='faces', split='test'
  )
  kept, _ = prepared_video.prepare_video(
    tmp_path,
    listed,
    [rule],
    prepared_video.Settings(),
    bright_faces.BrightFaces(),
  )
  record_writer.write_records(tmp_path, 'faces', rule, {'test': kept})
  scores = evaluate.score_dataset(
    detector,
    records_lib.open_records(tmp_path, 'faces', rule, 'test'),
    evaluate.EvalConfig(**{**detector.config.eval, **changes}),
    dataset='faces',
    split='test',
    synthesis=blending.SynthesisConfig(**detector.config.synthesis),
    num_threads=2,
  )
  (row,) = scores.rows
  prediction = _predict(detector, video, **changes)
  assert prediction.status == 'ok'
  assert len(prediction.clips) == 8
  # The same clips in batches of another size: up to rounding.
  logits = [clip.logit for clip in prediction.clips]
  np.testing.assert_allclose(logits, row.clip_logits, atol=2e-5)
  assert np.ptp(logits) > 1e-3
  assert prediction.logit == pytest.approx(row.logit, abs=2e-5)
  assert prediction.score == pytest.approx(row.score, abs=1e-5)


def test_clips_and_frames_say_where_in_the_video_they_are(detector, tmp_path):
  video = bright_faces.write_video(tmp_path / 'a.mp4', 63, fps=10)
  prediction = _predict(detector, video)
  indices = np.linspace(0, 62, 32).astype(int)
  assert [f.frame_index for f in prediction.frames] == indices.tolist()
  want = [tuple(of_clip) for of_clip in indices.reshape(8, 4).tolist()]
  assert [clip.frame_indices for clip in prediction.clips] == want
  assert prediction.frames[-1].time == pytest.approx(6.2)
  assert prediction.clips[-1].times[-1] == pytest.approx(6.2)
  boxes = np.array([frame.box for frame in prediction.frames])
  # Within the blur of the codec of where the square was drawn.
  np.testing.assert_allclose(boxes[:, 0], 80 + indices, atol=4)
  np.testing.assert_allclose(boxes[:, [1, 3]], [[60, 170]] * 32, atol=4)
  soft_labels = [frame.soft_label for frame in prediction.frames]
  assert 0 < min(soft_labels) < max(soft_labels) < 1


def test_times_are_those_of_the_file_and_oddities_are_noted(detector, tmp_path):
  image = np.full((240, 320, 3), 20, np.uint8)
  image[60:170, 80:180] = np.arange(120, 230, dtype=np.uint8)[:, None, None]
  pts = [*range(10), *range(100, 110)]
  matrix = [-1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30]
  video = made_videos.write(
    tmp_path / 'a.mp4',
    [image] * 20,
    pts=pts,
    adjust=lambda stream: stream.set_display_matrix(matrix),
  )
  prediction = _predict(detector, video)
  times = [frame.time for frame in prediction.frames]
  np.testing.assert_allclose(times, np.array(pts) / 25, rtol=1e-6)
  np.testing.assert_allclose(
    [clip.times for clip in prediction.clips], np.reshape(times, (5, 4))
  )
  assert prediction.notes == ('mirrored by its display matrix',)
  boxes = np.array([frame.box for frame in prediction.frames])
  np.testing.assert_allclose(boxes[:, 0], 320 - 180, atol=4)


def test_batches_of_clips_do_not_change_the_answer(detector, tmp_path):
  video = bright_faces.write_video(tmp_path / 'a.mp4', 40)
  whole, parts = (
    _predict(detector, video),
    _predict(detector, video, batch_size=3),
  )
  assert parts.logit == pytest.approx(whole.logit, abs=2e-5)
  assert len(parts.clips) == len(whole.clips) == 8


def test_videos_of_any_length_are_scored_by_one_program(detector, tmp_path):
  programs = (clip_scorer._score_clips, clip_scorer._eval_clips)
  for program in programs:
    program.clear_cache()
  ready = _ready(detector, frame_rule='dense')
  for length in (4, 7, 33, 70):
    path = bright_faces.write_video(tmp_path / f'{length}.mp4', length)
    assert ready.predict(path).status == 'ok'
  assert [program._cache_size() for program in programs] == [1, 1]


def test_the_next_clips_are_read_while_others_are_scored(detector, tmp_path):
  video = bright_faces.write_video(tmp_path / 'a.mp4', 70)
  ready = _ready(detector, batch_size=2)
  score, read_further = ready._scorer, threading.Event()
  waited = []

  def wait_and_score(frames):
    waited.append(read_further.wait(60))
    return score(frames)

  ready._scorer = wait_and_score
  # A batch is a quarter of the video's eight clips.
  ready.predict(video, watch=lambda share: share > 0.3 and read_further.set())
  assert waited == [True] * 4


def test_what_the_scoring_raises_ends_the_reading(detector, tmp_path):
  video = bright_faces.write_video(tmp_path / 'a.mp4', 70)
  ready = _ready(detector, batch_size=2)

  def fail(frames):
    raise MemoryError('of the device')

  ready._scorer = fail
  with pytest.raises(MemoryError, match='of the device'):
    ready.predict(video)


def test_the_answer_names_weights_libraries_and_file(detector, tmp_path):
  video = bright_faces.write_video(tmp_path / 'a.mp4', 12)
  prediction = _predict(detector, video)
  got = json.loads(prediction.to_json())['provenance']
  assert got['weights'] == clip_scorer.weights_digest(detector)
  assert got['step'] == 7 and got['checkpoint'] == 'here'
  assert got['versions']['jax'] == jax.__version__
  assert got['model']['num_frames'] == 4
  assert got['face_backend'] == 'bright'
  assert len(got['video']['source']['sha256']) == 64


def test_an_answer_says_what_its_score_means_or_that_nobody_knows(
  detector, tmp_path
):
  video = bright_faces.write_video(tmp_path / 'a.mp4', 12)
  plain = _predict(detector, video)
  assert plain.calibration.startswith('not calibrated for uniform frames')
  assert np.isnan(plain.probability) and plain.answer == ''
  made = _calibrated(
    detector, 'uniform', slope=2.0, intercept=5.0, uncertain=(0.2, 0.3)
  )
  answer = _ready(detector, made).predict(video)
  assert answer.score == plain.score
  want = 1 / (1 + np.exp(-2 * plain.logit - 5))
  assert answer.probability == pytest.approx(want) and want > 0.3
  assert answer.answer == 'likely fake'
  assert 'faces:val' in answer.calibration


def test_a_video_without_a_face_gets_no_score(detector, tmp_path):
  video = bright_faces.write_video(tmp_path / 'a.mp4', 12, face=False)
  prediction = _predict(detector, video)
  assert prediction.status == 'no_face'
  assert np.isnan(prediction.score) and not prediction.clips
  assert prediction.message == 'face in 0 of 12 frames'


def test_a_video_of_two_frames_is_too_short(detector, tmp_path):
  prediction = _predict(
    detector, bright_faces.write_video(tmp_path / 'a.mp4', 2)
  )
  assert prediction.status == 'too_short'
  assert 'a clip needs 4' in prediction.message
  assert np.isnan(prediction.score)


def test_a_text_file_named_mp4_is_unreadable(detector, tmp_path):
  video = tmp_path / 'a.mp4'
  video.write_text('no video')
  prediction = _predict(detector, video)
  assert prediction.status == 'unreadable'
  assert 'a.mp4 is not a video' in prediction.message


def test_a_name_that_ffmpeg_takes_for_a_protocol_is_read(
  detector, tmp_path, monkeypatch
):
  name = '2024-05-01T12:30:05 [x].mp4'
  bright_faces.write_video(tmp_path / 'a.mp4', 12).rename(tmp_path / name)
  monkeypatch.chdir(tmp_path)
  assert _predict(detector, pathlib.Path(name)).status == 'ok'


@pytest.mark.parametrize('start', [0.0, 21.3, 58.0])
def test_two_forged_seconds_of_sixty_are_named_to_within_one(
  detector, tmp_path, start
):
  fps = 10
  video = bright_faces.write_squares(
    tmp_path / 'a.mp4',
    60 * fps,
    lambda t: [(100, 100, start <= t / fps < start + 2)],
    fps,
  )
  said = _separating(detector).predict(video)
  (segment,) = said.segments
  assert abs(segment.start - start) <= 1
  assert abs(segment.end - start - 2) <= 1
  assert segment.probability > 0.9
  # As a whole it is real, and that alone is not what is said.
  assert said.probability < 0.3 and said.answer == 'uncertain'
  assert f'{segment.start:.1f} to {segment.end:.1f} s' in said.sentence
  assert said.sampling.clips_planned == 120
  assert said.sampling.spacing == pytest.approx(0.5, abs=0.02)


def test_the_worst_of_two_people_decides_and_both_are_named(detector, tmp_path):
  video = bright_faces.write_squares(
    tmp_path / 'a.mp4', 50, lambda t: [(20, 120, False), (200, 80, True)]
  )
  said = _separating(detector).predict(video)
  real, fake = said.tracks
  assert (real.number, real.answer, real.decides) == (1, 'likely real', False)
  assert (fake.number, fake.answer, fake.decides) == (2, 'likely fake', True)
  assert said.answer == 'likely fake' and said.probability == fake.probability
  assert 'the face of person 2 looks forged' in said.sentence
  assert {clip.track for clip in said.clips} == {1, 2}
  assert said.sampling.frames_with_face == said.sampling.frames_decoded == 32


def test_a_small_face_of_the_background_does_not_decide(detector, tmp_path):
  video = bright_faces.write_squares(
    tmp_path / 'a.mp4', 50, lambda t: [(20, 160, False), (250, 40, True)]
  )
  said = _separating(detector).predict(video)
  assert said.answer == 'likely real' and not said.segments
  assert said.tracks[1].left_out == 'face of 39 px beside one of 159 px'


def test_a_person_seen_for_a_moment_does_not_decide_but_is_a_passage(
  detector, tmp_path
):
  def squares(t):
    return [(20, 120, False)] + ([(200, 80, True)] if 100 <= t < 125 else [])

  video = bright_faces.write_squares(tmp_path / 'a.mp4', 250, squares)
  said = _separating(detector).predict(video)
  assert said.tracks[1].left_out.startswith('in 2 clips only, of 4 needed')
  assert said.answer == 'uncertain'
  (segment,) = said.segments
  assert segment.track == 2 and abs(segment.start - 4) <= 0.5


def test_a_long_video_has_its_clips_further_apart_and_says_so(
  detector, tmp_path
):
  video = bright_faces.write_squares(
    tmp_path / 'a.mp4', 300, lambda t: [(100, 100, False)], 10
  )
  look = video_detector.Look(max_frames=48)
  said = _separating(detector).predict(video, look)
  assert said.sampling.capped and said.sampling.clips_planned == 12
  assert any(
    'a clip every 2.7 s, for max_frames is 48' in n for n in said.notes
  )
  every = video_detector.Look(every=1.0)
  assert len(_separating(detector).predict(video, every).clips) == 30


@pytest.mark.parametrize(
  'changes', [{'every': 0.0}, {'max_frames': 3}, {'max_people': 0}]
)
def test_a_look_that_cannot_be_is_refused(changes):
  with pytest.raises(ValueError, match=next(iter(changes))):
    video_detector.Look(**changes)


def test_many_threads_get_the_answers_of_one(detector, tmp_path):
  ready = _ready(detector, frame_rule='dense')
  videos = [
    bright_faces.write_video(tmp_path / f'{n}.mp4', 20 + n) for n in range(4)
  ]
  alone = [ready.predict(video) for video in videos]
  together = [None] * len(videos)

  def ask(number):
    together[number] = ready.predict(videos[number])

  threads = [
    threading.Thread(target=ask, args=(n,)) for n in range(len(videos))
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert [a.to_json() for a in alone] == [t.to_json() for t in together]


def test_a_still_picture_gets_a_sentence_of_its_own(detector, tmp_path):
  image = np.full((240, 320, 3), 20, np.uint8)
  image[60:170, 80:180] = 200
  made_videos.write(tmp_path / 'a.mp4', [image])
  (tmp_path / 'a.png').write_bytes(records_lib.encode_frame(image, 'png'))
  for name in ('a.mp4', 'a.png'):
    said = _predict(detector, tmp_path / name)
    assert said.status == 'too_short'
    assert 'this is a still picture' in said.sentence


def test_memory_does_not_hold_what_was_scored(detector, tmp_path):
  """Crops of the worst clips alone stay, however long the video is."""
  video = bright_faces.write_squares(
    tmp_path / 'a.mp4', 300, lambda t: [(100, 100, t > 270)], 10
  )
  said = _separating(detector).predict(video)
  kept = [snapshot for snapshot in said.snapshots if snapshot.crops]
  assert len(said.snapshots) == 60 and len(kept) == 4
  assert {said.clips[s.clip].logit for s in kept} == {3.0}


def test_damaged_files_end_in_a_state_each_and_leave_nothing(
  detector, tmp_path
):
  whole = bright_faces.write_video(tmp_path / 'a.mp4', 30).read_bytes()
  ready = _separating(detector)
  rng = random.Random(0)
  states = set()
  for number in range(40):
    content = bytearray(whole)
    place = rng.randrange(len(content))
    match number % 4:
      case 0:
        del content[place:]
      case 1:
        del content[place : place + rng.randrange(4000)]
      case 2:
        content[place:place] = rng.randbytes(rng.randrange(3000))
      case 3:
        for _ in range(rng.randrange(1, 200)):
          content[rng.randrange(len(content))] = rng.randrange(256)
    file = tmp_path / 'b.mp4'
    file.write_bytes(content)
    states.add(ready.predict(file).status)
  assert {'ok', 'unreadable'} <= states
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a.mp4', 'b.mp4']


def test_a_detector_is_loaded_from_a_folder_with_its_calibration(
  detector, tmp_path, monkeypatch
):
  folder = tmp_path / 'small'
  weights = {'params': detector.params, 'stats': detector.stats}
  detector_lib.save_kept(folder, detector.config, weights)
  read = detector_lib.load_detector(folder)
  calibration.save(folder, _calibrated(read, 'uniform'))
  (folder / 'card.md').write_text('# It sees squares\n')
  monkeypatch.setattr(detector_lib, 'SHIPPED', folder)
  backend = bright_faces.BrightFaces()
  ready = video_detector.Detector.load(backend=backend)
  assert ready.card == '# It sees squares\n'
  said = ready.predict(bright_faces.write_video(tmp_path / 'a.mp4', 40))
  assert said.answer in ('likely real', 'uncertain', 'likely fake')
  assert said.uncertain == (0.4, 0.6)


def test_a_detector_takes_the_faces_that_its_run_learned_from_and_no_others(
  detector, tmp_path
):
  run = tmp_path / 'run'
  weights = {'params': detector.params, 'stats': detector.stats}
  file = handmade_onnx.write_constants(
    tmp_path / 'scrfd.onnx', scrfd_test.make_outputs()
  )
  name = backends.Choice('scrfd', (str(file),)).full_name
  detector_lib.save_kept(run, detector.config, weights, name)
  load = video_detector.Detector.load
  with pytest.raises(
    ValueError, match=f'{run}: the faces were found by scrfd;'
  ):
    load(run)
  with pytest.raises(ValueError, match='--backend=embedded: the faces were fo'):
    load(run, backend='embedded')
  with pytest.raises(ValueError, match='bright would cut them out otherwise'):
    load(run, backend=bright_faces.BrightFaces())
  assert load(run, face_models=[file]).provenance['face_backend'] == name


def test_a_package_without_weights_says_so(tmp_path, monkeypatch):
  monkeypatch.setattr(detector_lib, 'SHIPPED', tmp_path)
  with pytest.raises(FileNotFoundError, match='no weights are shipped'):
    video_detector.Detector.load()


def test_what_is_no_file_with_a_name_of_text_is_refused(detector, tmp_path):
  ready = _ready(detector)
  with pytest.raises(FileNotFoundError, match=r'a\.mp4: no such video file'):
    ready.predict(tmp_path / 'a.mp4')
  video = tmp_path / os.fsdecode(b'caf\xe9.mp4')
  video.touch()
  with pytest.raises(ValueError, match='not UTF-8; rename'):
    ready.predict(video)
