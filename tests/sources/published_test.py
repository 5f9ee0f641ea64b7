"""Published data sets, from small trees of their own layouts."""

import io
import json
import pathlib
import tarfile

import pytest

from data_pipeline.sources import faceforensics, published
from data_pipeline.sources import tree as tree_lib


def plant(root: pathlib.Path, *paths: str, content: str = 'x') -> pathlib.Path:
  """Makes files of a few bytes, with their folders."""
  for path in paths:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)
  return root


def listed(name: str, root: pathlib.Path) -> dict[str, tuple]:
  """(label, split, method) by video_id."""
  videos = published.list_published(name, root, 'd')
  assert len({v.video_id for v in videos}) == len(videos)
  assert all(v.dataset == 'd' for v in videos)
  return {v.video_id: (v.label, v.split, v.method) for v in videos}


def faceforensics_tree(root: pathlib.Path) -> pathlib.Path:
  pairs = {
    'train': ['071', '054'],
    'val': ['720', '672'],
    'test': ['953', '974'],
  }
  for split, (first, second) in pairs.items():
    plant(root, f'splits/{split}.json', content=f'[["{first}", "{second}"]]')
    for target, origin in ((first, second), (second, first)):
      plant(root, f'original_sequences/youtube/c23/videos/{target}.mp4')
      for method in faceforensics.METHODS:
        plant(
          root,
          f'manipulated_sequences/{method}/c23/videos/{target}_{origin}.mp4',
        )
  return root


def celebdf_tree(root: pathlib.Path) -> pathlib.Path:
  plant(
    root,
    'Celeb-real/id0_0000.mp4',
    'Celeb-real/id1_0003.mp4',
    'YouTube-real/00170.mp4',
    'Celeb-synthesis/id0_id1_0000.mp4',
    'Celeb-synthesis/id1_id0_0003.mp4',
  )
  lines = [
    '1 YouTube-real/00170.mp4',
    '1 Celeb-real/id1_0003.mp4',
    '0 Celeb-synthesis/id1_id0_0003.mp4',
  ]
  return plant(root, 'List_of_testing_videos.txt', content='\n'.join(lines))


def test_pairs_of_faceforensics_give_a_fake_in_each_direction(tmp_path):
  found = listed('ffpp_c23', faceforensics_tree(tmp_path))
  assert len(found) == 6 * (1 + len(faceforensics.METHODS))
  folder = 'manipulated_sequences/NeuralTextures/c23/videos'
  assert found[f'{folder}/672_720.mp4'] == (1, 'val', 'NeuralTextures')
  assert found['original_sequences/youtube/c23/videos/974.mp4'] == (
    0,
    'test',
    '',
  )


def test_a_fake_of_faceforensics_names_its_original(tmp_path):
  root = faceforensics_tree(tmp_path)
  for video in published.list_published('ffpp_c23', root, 'd'):
    if video.label:
      stem = pathlib.PurePosixPath(video.pair).stem
      assert pathlib.PurePosixPath(video.path).stem.startswith(f'{stem}_')
      assert (root / video.pair).exists()


def test_another_compression_is_named(tmp_path):
  with pytest.raises(ValueError, match='has no c40; it has c23'):
    listed('ffpp_c40', faceforensics_tree(tmp_path))


def test_faceforensics_without_its_lists_says_where_they_are(tmp_path):
  root = faceforensics_tree(tmp_path)
  (root / 'splits/val.json').unlink()
  with pytest.raises(ValueError, match='official repository'):
    listed('ffpp_c23', root)


def test_dfd_is_all_for_testing_and_knows_the_scene(tmp_path):
  plant(
    tmp_path,
    'original_sequences/actors/c23/videos/01__walk.mp4',
    'manipulated_sequences/DeepFakeDetection/c23/videos/01_02__walk__ABC.mp4',
  )
  real, fake = published.list_published('dfd_c23', tmp_path, 'd')
  assert (real.split, fake.split) == ('test', 'test')
  assert fake.pair == real.path


def test_the_first_line_of_the_celebdf_list_is_a_video(tmp_path):
  found = listed('celebdf_v2', celebdf_tree(tmp_path))
  assert found['YouTube-real/00170.mp4'] == (0, 'test', '')
  assert sum(split == 'test' for _, split, _ in found.values()) == 3
  assert found['Celeb-synthesis/id0_id1_0000.mp4'][:2] == (1, 'train')


def test_a_celebdf_list_turned_round_is_refused(tmp_path):
  root = celebdf_tree(tmp_path)
  plant(root, 'List_of_testing_videos.txt', content='0 Celeb-real/id0_0000.mp4')
  with pytest.raises(ValueError, match='line 1: label 0 contradicts'):
    listed('celebdf_v2', root)


@pytest.mark.parametrize('nest', ['', 'Celeb-DF-v2/', 'a/Celeb-DF-v2/'])
def test_a_set_may_lie_deeper_than_the_root(tmp_path, nest):
  celebdf_tree(tmp_path / nest)
  assert f'{nest}Celeb-real/id0_0000.mp4' in listed('celebdf_v2', tmp_path)


def test_upper_case_endings_and_a_folder_videos_are_the_same_videos(tmp_path):
  root = celebdf_tree(tmp_path)
  (root / 'Celeb-real/id1_0003.mp4').rename(root / 'Celeb-real/id1_0003.MP4')
  (root / 'YouTube-real/videos').mkdir()
  (root / 'YouTube-real/00170.mp4').rename(
    root / 'YouTube-real/videos/00170.mp4'
  )
  found = listed('celebdf_v2', root)
  assert found['Celeb-real/id1_0003.MP4'][1] == 'test'
  assert found['YouTube-real/videos/00170.mp4'][1] == 'test'
  assert len(found) == 5


def test_names_that_repeat_across_methods_of_celebdf_plus_stay_apart(tmp_path):
  root = celebdf_tree(tmp_path)
  for folder in ('FaceSwap/SimSwap', 'TalkingFace/SadTalker'):
    plant(root, f'Celeb-synthesis/{folder}/id0_id1_0000.mp4')
  plant(root, 'List_of_testing_videos.txt', content='1 Celeb-real/id0_0000.mp4')
  videos = published.list_published('celebdf_plus', root, 'd')
  fakes = [v for v in videos if v.label]
  assert [v.group for v in fakes] == ['FaceSwap', 'TalkingFace']
  assert [v.method for v in fakes] == ['SimSwap', 'SadTalker']


@pytest.mark.parametrize(
  'name, root', [('celebdf_v2', ''), ('celebdf_plus', 'FaceSwap/SimSwap/')]
)
def test_a_fake_of_another_name_is_a_fake_without_an_original(
  tmp_path, name, root
):
  celebdf_tree(tmp_path)
  path = f'Celeb-synthesis/{root}odd.mp4'
  plant(tmp_path, path)
  videos = published.list_published(name, tmp_path, 'd')
  odd = next(video for video in videos if video.path == path)
  assert (odd.label, odd.split, odd.pair) == (1, 'train', '')


@pytest.mark.parametrize(
  'name, path, content, says',
  [
    ('dfdc', 'dfdc_train_part_0/metadata.json', '[{"file": 1}]', 'another'),
    ('dfdc', 'dfdc_train_part_0/metadata.json', '{"a.mp4": "REAL"}', 'another'),
    ('dfdcp', 'dataset.json', '["a.mp4"]', 'another'),
    ('lavdf', 'metadata.json', '{"a.mp4": {}}', 'another'),
    ('lavdf', 'metadata.json', '["a.mp4"]', 'another'),
    ('lavdf', 'metadata.json', '[{"file": "a.mp4"}]', "without 'split'"),
    (
      'fakeavceleb',
      'meta_data.csv',
      'source,method,type,path\n\nid1,-,A,a.mp4\n\nid1\n',
      'entry 2',  # empty lines are none
    ),
  ],
)
def test_a_list_of_another_form_is_named(tmp_path, name, path, content, says):
  plant(tmp_path, 'original_videos/a.mp4', 'RealVideo-RealAudio/a.mp4')
  plant(tmp_path, path, content=content)
  with pytest.raises(ValueError, match=says) as error:
    listed(name, tmp_path)
  assert path in str(error.value)


def test_a_list_that_is_no_utf8_is_named(tmp_path):
  celebdf_tree(tmp_path)
  (tmp_path / 'List_of_testing_videos.txt').write_bytes(b'1 caf\xe9.mp4')
  with pytest.raises(ValueError, match=r'testing_videos.txt: not UTF-8'):
    listed('celebdf_v2', tmp_path)


@pytest.mark.parametrize('folder', ['test', 'test/videos'])
def test_dfdc_is_found_in_either_place(tmp_path, folder):
  plant(tmp_path, f'{folder}/a.mp4', f'{folder}/b.mp4')
  plant(
    tmp_path, 'test/labels.csv', content='filename,label\na.mp4,0\nb.mp4,1\n'
  )
  plant(tmp_path, 'dfdc_train_part_0/x.mp4', 'dfdc_train_part_0/y.mp4')
  entries = {
    'x.mp4': {'label': 'FAKE', 'split': 'train', 'original': 'y.mp4'},
    'y.mp4': {'label': 'REAL', 'split': 'train'},
  }
  plant(
    tmp_path, 'dfdc_train_part_0/metadata.json', content=json.dumps(entries)
  )
  found = listed('dfdc', tmp_path)
  assert found[f'{folder}/b.mp4'][:2] == (1, 'test')
  assert found['dfdc_train_part_0/y.mp4'][:2] == (0, 'train')
  assert len(found) == 4


def test_the_preview_of_dfdc_goes_by_its_own_list(tmp_path):
  entries = {
    'method_A/1_2.mp4': {'label': 'fake', 'set': 'test'},
    'original_videos/1_3.mp4': {'label': 'real', 'set': 'train'},
  }
  plant(tmp_path, *entries)
  plant(tmp_path, 'dataset.json', content=json.dumps(entries))
  found = listed('dfdcp', tmp_path)
  assert found['method_A/1_2.mp4'] == (1, 'test', 'method_A')
  assert found['original_videos/1_3.mp4'] == (0, 'train', '')


def test_wilddeepfake_lists_sequences_packed_or_not(tmp_path):
  plant(tmp_path, 'real_test/1/real/7/0.png', 'real_test/1/real/7/1.png')
  archive = tmp_path / 'fake_test/2.tar.gz'
  archive.parent.mkdir()
  with tarfile.open(archive, 'w:gz') as file:
    for name in ('2/fake/3/0.png', '2/fake/4/0.png'):
      member = tarfile.TarInfo(name)
      member.size = 1
      file.addfile(member, io.BytesIO(b'x'))
  videos = published.list_published('wilddeepfake', tmp_path, 'd')
  assert [v.path for v in videos] == [
    'real_test/1/real/7',
    'fake_test/2.tar.gz/2/fake/3',
    'fake_test/2.tar.gz/2/fake/4',
  ]
  assert all(v.is_crop and v.split == 'test' for v in videos)


def test_deeperforensics_has_the_same_names_in_every_variant(tmp_path):
  plant(tmp_path, 'manipulated_videos/end_to_end/977_M1.mp4')
  plant(tmp_path, 'manipulated_videos/reenact_postprocess/977_M1.mp4')
  for split in ('train', 'val', 'test'):
    content = '977_M1.mp4\n' if split == 'test' else '\n'
    plant(tmp_path, f'lists/splits/{split}.txt', content=content)
  assert len(listed('deeperforensics', tmp_path)) == 2


def test_df40_takes_its_fakes_and_the_reals_of_nine_sets(tmp_path):
  plant(
    tmp_path,
    'simswap/ff/frames/000_003/1.png',
    'simswap/cdf/frames/id0/1.png',
    'heygen/fake/a/1.png',
    'heygen/real/b/1.png',
  )
  found = listed('df40_ff', tmp_path)
  assert sorted(found) == [
    'heygen/fake/a',
    'heygen/real/b',
    'simswap/ff/frames/000_003',
  ]
  assert list(listed('df40_cdf', tmp_path)) == ['simswap/cdf/frames/id0']


def test_forged_sound_alone_is_a_real_face(tmp_path):
  header = 'source,target1,target2,method,category,type,race,gender,path,\n'
  rows = [
    'id1,-,-,real,A,RealVideo-RealAudio,Asian,men,RealVideo-RealAudio/a,0.mp4',
    'id1,-,-,rtvc,B,RealVideo-FakeAudio,Asian,men,RealVideo-FakeAudio/a,1.mp4',
    'id1,-,-,wav2lip,D,FakeVideo-FakeAudio,Asian,men,FakeVideo-FakeAudio/a,2.mp4',
  ]
  plant(tmp_path, 'meta_data.csv', content=header + '\n'.join(rows))
  plant(tmp_path, 'RealVideo-RealAudio/a/0.mp4')
  videos = published.list_published('fakeavceleb', tmp_path, 'd')
  assert [v.label for v in videos] == [0, 0, 1]
  assert [v.group for v in videos] == ['', 'sound-only', '']
  assert videos[0].path == 'RealVideo-RealAudio/a/0.mp4'


def test_forged_periods_become_stretches(tmp_path):
  entry = {
    'file': 'test/1.mp4',
    'split': 'test',
    'modify_video': True,
    'modify_audio': False,
    'fake_periods': [[2.0, 3.0]],
    'duration': 10.0,
    'video_frames': 250,
    'original': None,
  }
  sound = {**entry, 'file': 'test/2.mp4', 'modify_video': False}
  sound['modify_audio'] = True
  plant(tmp_path, 'metadata.json', content=json.dumps([entry, sound]))
  plant(tmp_path, 'test/1.mp4', 'test/2.mp4')
  parts = published.list_published('lavdf_segments', tmp_path, 'd')
  assert [(v.label, v.start, v.end) for v in parts] == [
    (0, 0, 50),
    (1, 50, 75),
    (0, 75, 250),
    (0, 0, None),
  ]
  whole = published.list_published('lavdf', tmp_path, 'd')
  assert [v.label for v in whole] == [1, 0]


def test_kodf_and_synthforensics_go_by_their_folders(tmp_path):
  plant(tmp_path, 'original_videos/7/a.mp4', 'synthesized_videos/fsgan/7/b.mp4')
  assert listed('kodf', tmp_path)['synthesized_videos/fsgan/7/b.mp4'] == (
    1,
    'test',
    'fsgan',
  )
  plant(tmp_path, 'T2V/videos/crf23/sora/a.mp4')
  assert list(listed('synthforensics_crf23', tmp_path).values()) == [
    (1, 'test', 'sora')
  ]
  with pytest.raises(ValueError, match='not SynthForensics at raw'):
    listed('synthforensics_raw', tmp_path)


def test_deepfakebench_keeps_the_same_name_of_two_methods_apart(tmp_path):
  sets = {}
  for label in ('FF-real', 'FF-DF', 'FF-F2F'):
    frame = f'FaceForensics++/{label}/c23/frames/000/000.png'
    plant(tmp_path, frame)
    entry = {'label': label, 'frames': [f'/elsewhere/rgb/{frame}']}
    sets[label] = {
      'val': {'c23': {'000': entry}},
      'test': {'c23': {'000': entry}},
    }
  plant(tmp_path, 'json/FF.json', content=json.dumps({'FaceForensics++': sets}))
  found = listed('deepfakebench_c23', tmp_path)
  assert sorted(found) == ['FF-DF/000', 'FF-F2F/000', 'FF-real/000']
  assert found['FF-real/000'] == (0, 'test', '')


def test_deepfakebench_brings_its_landmarks_where_they_lie_beside(tmp_path):
  entries = {}
  for name in ('000', '001'):
    frame = f'Celeb/{name}/frames/{name}/00.png'
    plant(tmp_path, frame)
    entries[name] = {'label': 'R-real', 'frames': [frame]}
  plant(tmp_path, 'Celeb/000/landmarks/000/00.npy')
  sets = {'Celeb': {'R-real': {'test': entries}}}
  plant(tmp_path, 'Celeb.json', content=json.dumps(sets))
  videos = published.list_published('deepfakebench_c23', tmp_path, 'd')
  assert {v.video_id: v.landmarks for v in videos} == {
    'R-real/000': 'Celeb/000/landmarks/000',
    'R-real/001': '',
  }


def test_labels_of_the_originals_crops_come_from_its_json(tmp_path):
  plant(
    tmp_path,
    'test/frames/1/a/000.png',
    'test/frames/0/b/000.png',
    'train/videos/Original/c/000.png',
  )
  entries = [
    {'image_path': '/elsewhere/test/frames/1/a/000.png', 'label': 1},
    {'image_path': '/elsewhere/test/frames/0/b/000.png', 'label': 0},
  ]
  entries[0]['orig_lms'] = [[1, 2]] * 81
  plant(tmp_path, 'test.json', content=json.dumps({'data': entries}))
  plant(tmp_path, 'a.json', content='{"data": 1}')  # of something else
  plant(tmp_path, 'b.json', content='{"data": ["c"]}')
  found = listed('fakestormer', tmp_path)
  assert [found[k][0] for k in sorted(found)] == [0, 1, 0]
  videos = published.list_published('fakestormer', tmp_path, 'd')
  assert {v.path: v.landmarks for v in videos} == {
    'test/frames/0/b': '',
    'test/frames/1/a': 'test.json',
    'train/videos/Original/c': '',
  }


@pytest.mark.parametrize('name', published.SOURCES)
def test_another_tree_is_refused_with_what_it_holds(tmp_path, name):
  plant(tmp_path, 'holiday/a.mp4')
  with pytest.raises(ValueError, match=str(tmp_path)):
    listed(name, tmp_path)


@pytest.mark.parametrize('name', published.SOURCES)
def test_every_source_says_what_it_is(name):
  source = published.SOURCES[name]
  for text in (source.title, source.home, source.licence, source.layout):
    assert text
  assert source.traps and all(trap.endswith('.') for trap in source.traps)


@pytest.mark.parametrize('name', published.SOURCES)
def test_the_docs_hold_every_source_and_its_traps(name):
  docs = pathlib.Path(__file__).parents[2] / 'docs' / 'published_sets.md'
  text = ' '.join(docs.read_text().split())
  source = published.SOURCES[name]
  for part in (f'`{name}`', source.title, source.home, *source.traps):
    assert ' '.join(part.split()) in text


def test_an_unknown_source_lists_the_known_ones():
  with pytest.raises(ValueError, match='celebdf_v2'):
    published.source('celebdf')


def test_a_loop_of_links_ends(tmp_path):
  plant(tmp_path, 'a/b.mp4')
  (tmp_path / 'a/again').symlink_to(tmp_path)
  (tmp_path / 'linked').symlink_to(tmp_path / 'a')
  tree = tree_lib.read_tree(tmp_path)
  assert 'linked/b.mp4' in tree.sizes
  assert 'a/again/a/b.mp4' not in tree.sizes
