"""What the command line refuses before anything is started."""

import pytest

from stormer_jax import main


@pytest.mark.parametrize('mode', main.MODES)
@pytest.mark.parametrize(
  'flag',
  ['--workdir=gs://bucket/run', '--data_root=s3://bucket', '-out=hdfs://a/b'],
)
def test_addresses_of_buckets_are_refused_with_the_way_to_mount_them(
  mode, flag
):
  with pytest.raises(ValueError, match=r'mount the bucket .*docs/launch\.md'):
    main.define_flags(['main', f'--mode={mode}', flag])


def test_the_value_of_a_path_may_stand_apart():
  with pytest.raises(ValueError, match='--workdir=gs://bucket'):
    main.define_flags(['main', '--mode=train', '--workdir', 'gs://bucket'])
