//! The index against a plain map: whatever is written, frozen and spilled, readers see the map.

use std::collections::BTreeMap;

use super::batch::IndexBatch;
use super::store::Index;
use crate::log::sim_disk::Random;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Few keys, so that they meet; of both lengths that are stored differently.
fn key(random: &mut Random) -> Vec<u8> {
    let mut key = vec![b'a' + random.below(3) as u8, random.below(12) as u8];
    if random.below(4) == 0 {
        key.resize(40, 7);
    }
    key
}

fn change(model: &mut Model, batch: &mut IndexBatch, random: &mut Random) {
    let (one, value) = (key(random), random.draw().to_be_bytes()[..random.below(8) as usize].to_vec());
    match random.below(10) {
        0..=4 if model.contains_key(&one) => {
            batch.put(&one, value.clone());
            model.insert(one, value);
        }
        0..=4 => {
            batch.put_new(&one, value.clone());
            model.insert(one, value);
        }
        5 => {
            batch.put(&one, value.clone());
            model.insert(one, value);
        }
        6..=8 => {
            batch.delete(&one);
            model.remove(&one);
        }
        _ => {
            let other = key(random);
            let (from, to) = if one < other { (one, other) } else { (other, one) };
            batch.delete_range(&from, &to);
            model.retain(|key, _| *key < from || *key >= to);
        }
    }
}

fn compare(model: &Model, index: &Index, random: &mut Random) {
    for _ in 0..4 {
        let one = key(random);
        assert_eq!(index.get(&one).expect("readable").as_deref(), model.get(&one).map(Vec::as_slice), "get {one:?}");
    }
    let (one, other, mut middle) = (key(random), key(random), key(random));
    let (from, to) = if one < other { (one, other) } else { (other, one) };
    let expected: Vec<_> = model.range(from.clone()..to.clone()).map(|(key, value)| (&key[..], &value[..])).collect();
    let rows: Vec<_> = index.scan(&from, &to).collect::<Result<_, _>>().expect("readable");
    let found: Vec<_> = rows.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(found, expected, "scan {from:?} to {to:?}");
    let last = index.last_at_or_below(&from, &to).expect("readable");
    let expected = model.range(from.clone()..=to.clone()).next_back();
    assert_eq!(last.map(|(key, _)| key.to_vec()).as_ref(), expected.map(|(key, _)| key), "last {from:?} to {to:?}");
    // A cursor, from the last row at or below a key to the end, and then again from elsewhere.
    middle = middle.clamp(from.clone(), to.clone());
    let mut rows = index.cursor(&from, &middle, &to).expect("readable");
    for _ in 0..2 {
        let within = || model.range(from.clone()..to.clone());
        let start =
            within().rev().find(|(key, _)| **key <= middle).or_else(|| within().next()).map(|(key, _)| key.clone());
        let expected: Vec<_> = within().filter(|(key, _)| Some(*key) >= start.as_ref()).collect();
        for (key, value) in expected {
            assert_eq!(rows.row(), Some((&key[..], &value[..])), "cursor {from:?} to {to:?} at {middle:?}");
            rows.advance().expect("readable");
        }
        assert_eq!(rows.row(), None);
        middle = key(random).clamp(from.clone(), to.clone());
        rows.seek_back(&middle).expect("readable");
    }
}

#[test]
fn readers_see_the_newest_wherever_it_is() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let (mut model, index) = (Model::new(), Index::in_memory().expect("an index"));
        for _ in 0..250 {
            let mut batch = IndexBatch::default();
            for _ in 0..=random.below(4) {
                change(&mut model, &mut batch, &mut random);
            }
            index.write(batch);
            match random.below(12) {
                0 if !index.is_frozen() => index.freeze(),
                1 => index.spill().expect("a spill"),
                2 => index.flush().expect("a flush"),
                _ => {}
            }
            compare(&model, &index, &mut random);
        }
        index.flush().expect("a flush");
        assert_eq!(index.unflushed_bytes(), 0, "nothing is left in memory");
        let mut rows = Vec::new();
        index.for_all(|key, value| rows.push((key.to_vec(), value.to_vec()))).expect("readable");
        assert_eq!(rows, model.into_iter().collect::<Vec<_>>(), "files, seed {seed}");
    }
}

#[test]
fn what_comes_and_goes_between_flushes_leaves_nothing() {
    let index = Index::in_memory().expect("an index");
    let mut batch = IndexBatch::default();
    batch.put_new("new", "value");
    batch.put("known", "value");
    index.write(batch);
    let mut batch = IndexBatch::default();
    batch.delete("new");
    index.write(batch);
    let one_row = index.unflushed_bytes();
    let mut batch = IndexBatch::default();
    batch.delete("known");
    index.write(batch);
    assert_eq!(index.unflushed_bytes(), one_row - 5, "that it is removed must be known below");
}
