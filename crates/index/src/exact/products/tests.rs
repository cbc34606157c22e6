use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

impl Processor {
    /// Those that this machine has.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self::Any];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(is_x86_feature_detected!("avx2").then_some(Self::Avx2));
            all.extend(has_vnni().then_some(Self::Avx512Vnni));
        }
        all
    }
}

/// Codes in lines of 64 bytes, the rest of the last one `beyond`.
fn lines<T: Copy>(codes: impl Iterator<Item = T>, beyond: T) -> Vec<[T; ROW_LINE]> {
    let codes: Vec<T> = codes.collect();
    let line = |codes: &[T]| std::array::from_fn(|at| codes.get(at).copied().unwrap_or(beyond));
    codes.chunks(ROW_LINE).map(line).collect()
}

fn check<const N: usize>(random: &mut ChaCha8Rng, words: usize, tiles: usize, extreme: bool) {
    let mut code = || if extreme { [-127i8, 127][random.random_range(0..2)] } else { random.random_range(-127..=127) };
    let rows: Vec<Vec<i8>> = (0..tiles * TILE_ROWS).map(|_| (0..words * 4).map(|_| code()).collect()).collect();
    let queries: Vec<Vec<i8>> = (0..N).map(|_| (0..words * 4).map(|_| code()).collect()).collect();
    let mut tile_lines = vec![Line([OFFSET; 64]); tiles * words * TILE_LINES];
    for (at, row) in rows.iter().enumerate() {
        for (component, code) in row.iter().enumerate() {
            let line = (at / TILE_ROWS * words + component / 4) * TILE_LINES + at % TILE_ROWS / LINE_ROWS;
            tile_lines[line].0[at % LINE_ROWS * 4 + component % 4] = (i16::from(*code) + 128) as u8;
        }
    }
    let words_of = |query: &Vec<i8>| -> Vec<u32> {
        query.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(word.map(i8::cast_unsigned))).collect()
    };
    let query_words: Vec<Vec<u32>> = queries.iter().map(words_of).collect();
    let product =
        |row: &[i8], query: &[i8]| row.iter().zip(query).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum::<i32>();
    // The median of the first query's products, as the least: some rows reach it, some do not.
    let mut sorted: Vec<i32> = rows.iter().map(|row| product(row, &queries[0])).collect();
    sorted.sort_unstable();
    let least = sorted[sorted.len() / 2];
    let asks: [Ask<'_>; N] = std::array::from_fn(|at| Ask {
        words: &query_words[at],
        sum: queries[at].iter().map(|code| i32::from(*code)).sum(),
        slope: 0.5,
        rise: 1.0,
        least: (least as f32 * 0.5 + 1.0) * 0.25,
    });
    let mut scales = vec![[0.25; TILE_ROWS]; tiles];
    scales[tiles - 1][TILE_ROWS - 1] = f32::NAN;
    let row_lines = |row: &Vec<i8>| -> Vec<RowLine> {
        lines(row.iter().map(|code| (i16::from(*code) + 128) as u8), OFFSET).into_iter().map(RowLine).collect()
    };
    let row_lines: Vec<_> = rows.iter().map(row_lines).collect();
    let codes: Vec<_> = row_lines.iter().map(|lines| CodesOfRow { lines, place: &0 }).collect();
    for processor in Processor::all() {
        for (query, ask) in queries.iter().zip(&asks) {
            let mut products = vec![0; rows.len()];
            processor.rows(&lines(query.iter().copied(), 0), ask.sum, &codes, &mut products);
            assert_eq!(products, rows.iter().map(|row| product(row, query)).collect::<Vec<_>>(), "{processor:?}");
        }
        let mut answers = vec![[Answer { reach: u64::MAX, ..Answer::NONE }; N]; tiles];
        processor.ask(
            Tiles { lines: &tile_lines, scales: &scales, ahead: &tile_lines[..tile_lines.len() / 2] },
            &asks,
            &mut answers,
        );
        for (at, row) in rows.iter().enumerate() {
            for (query, answer) in queries.iter().zip(answers[at / TILE_ROWS]) {
                let product = product(row, query);
                let expected = product as f32 >= least as f32 && at + 1 < rows.len();
                assert_eq!(answer.reach >> (at % TILE_ROWS) & 1 == 1, expected, "{processor:?}, row {at}");
                let upper = 0.25 * (product as f32 * 0.5 + 1.0);
                assert!(at + 1 == rows.len() || answer.upper[at % TILE_ROWS] == upper, "{processor:?}, row {at}");
            }
        }
    }
}

#[test]
fn every_processor_tells_which_numbers_are_not_below_another() {
    let mut scores: [f32; TILE_ROWS] = std::array::from_fn(|at| (at as f32 - 20.0) / 10.0);
    (scores[3], scores[40]) = (f32::NAN, f32::INFINITY);
    for processor in Processor::all() {
        for least in [-2.0, 0.05, 0.5, 10.0, f32::NEG_INFINITY, f32::INFINITY, f32::NAN] {
            let reach = processor.reaching(&scores, least);
            let expected: Vec<bool> = scores.iter().map(|score| *score >= least).collect();
            assert_eq!(
                (0..TILE_ROWS).map(|at| reach >> at & 1 == 1).collect::<Vec<_>>(),
                expected,
                "{processor:?}, {least}"
            );
        }
    }
}

#[test]
fn every_processor_finds_the_same_whole_numbers() {
    let random = &mut ChaCha8Rng::seed_from_u64(1);
    for words in [1, 2, 3, 16, 25, 32] {
        for tiles in 1..=4 {
            for extreme in [false, true] {
                check::<1>(random, words, tiles, extreme);
                check::<TOGETHER>(random, words, tiles, extreme);
            }
        }
    }
    check::<1>(random, 1_024, 1, true);
    check::<TOGETHER>(random, 1_024, 1, true);
}
