"""Views that are made while images are read, in loader processes or without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import class_folders
from loading import CROPS, indices, memory
from scipy.stats import ks_2samp
from torch import Tensor

from kaizen.data.images import Images, MemoryImages, RandomCrop, image_folder
from kaizen.data.loaders import one_epoch, training_loader
from kaizen.data.views import ViewOptions, Views, ViewTransform

OPTIONS = ViewOptions(8, 0.4, 0.4, 0.2, 0.1, (0.5,) * 3, (0.3,) * 3, blur_prob=0.5, solarize_prob=0.2)


def draw(images: Images) -> Images:
    """In the place of views: random numbers, and how many threads may work."""
    return [torch.rand(len(images)), torch.full((len(images),), torch.get_num_threads())]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_in_memory_become_views_in_as_many_processes_as_asked_for(workers: int) -> None:
    loader = training_loader(memory(24), torch.arange(24), CROPS, 4, workers, seed=0, transform=Views([OPTIONS] * 2))
    assert loader.num_workers == workers
    batches = list(loader)
    assert [len(chosen) for _, _, chosen in batches] == [4] * 6
    for views, targets, chosen in batches:
        assert [(view.shape, view.dtype) for view in views] == [((4, 3, 8, 8), torch.float32)] * 2
        assert all(view.is_contiguous(memory_format=torch.channels_last) for view in views)
        assert not torch.equal(*views)
        assert torch.equal(targets, 2 * chosen)
    plain = training_loader(memory(24), torch.arange(24), CROPS, 4, workers, seed=0)
    assert indices(plain) == [chosen.tolist() for _, _, chosen in batches]


@pytest.mark.parametrize("workers", [0, 1])
def test_large_images_become_views_while_they_are_read(tmp_path: Path, workers: int) -> None:
    data = image_folder(class_folders(tmp_path, [4], sizes=[(100, 120)]) / "train", "--train_dir")
    parts = [OPTIONS, ViewOptions(6, 0, 0, 0, 0, (0.0,) * 3, (1.0,) * 3)]
    crops = [RandomCrop(8, 0.5, 1.0), RandomCrop(6, 0.5, 1.0)]
    loader = training_loader(data, torch.arange(4), crops, 2, workers, seed=0, transform=Views(parts))
    for views, _, _ in loader:
        assert [(view.shape, view.dtype) for view in views] == [((2, 3, s, s), torch.float32) for s in (8, 6)]
    one = training_loader(data, torch.arange(4), crops[:1], 2, workers, seed=0, transform=ViewTransform(OPTIONS))
    assert all(isinstance(view, Tensor) and view.dtype == torch.float32 for view, _, _ in one)


def test_every_batch_draws_numbers_of_its_own_from_the_seed_whichever_process_makes_it() -> None:
    def numbers(seed: int, workers: int) -> list[float]:
        loader = training_loader(memory(24), torch.arange(24), CROPS, 4, workers, seed=seed, transform=draw)
        batches = [images for _ in range(3) for images, _, _ in loader]
        if workers:
            assert all(threads.eq(1).all() for _, threads in batches)
        return [number for drawn, _ in batches for number in drawn.tolist()]

    before = torch.get_rng_state()
    first = numbers(seed=1, workers=0)
    assert len(set(first)) == len(first) == 72
    assert numbers(seed=1, workers=2) == numbers(seed=1, workers=1) == first
    assert not set(numbers(seed=2, workers=0)) & set(first)
    torch.set_rng_state(before)
    own = numbers(seed=1, workers=0)
    assert own == first


def test_an_epoch_read_beside_training_draws_numbers_of_its_own() -> None:
    loader = training_loader(memory(24), torch.arange(24), CROPS, 4, 2, seed=0, transform=draw)
    batches = [images for images, _, _ in loader] + [batch["task"][0] for batch in one_epoch({"task": loader})]
    assert len({number for drawn, _ in batches for number in drawn.tolist()}) == 48


def test_views_made_in_processes_are_distributed_as_those_made_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    levels = torch.rand(1200, 3, 1, 1, generator=generator) * torch.rand(1200, 3, 12, 12, generator=generator)
    images = MemoryImages((levels * 255).to(torch.uint8), torch.zeros(1200, dtype=torch.int64), [])
    torch.manual_seed(0)
    views = Views([OPTIONS])
    loader = training_loader(images, torch.arange(1200), CROPS[:1], 100, 2, seed=0, transform=views)
    apart = torch.cat([made[0] for made, _, _ in loader])
    at_once = views(images.images)[0]
    for of in (lambda x: x.mean((1, 2, 3)), lambda x: x.std((1, 2, 3)), lambda x: x[:, 0, 0, 0]):
        assert ks_2samp(of(apart).numpy(), of(at_once).numpy()).pvalue > 0.005
    torch.testing.assert_close(apart.mean((0, 2, 3)), at_once.mean((0, 2, 3)), atol=0.06, rtol=0)
    torch.testing.assert_close(apart.std((0, 2, 3)), at_once.std((0, 2, 3)), atol=0.06, rtol=0)
