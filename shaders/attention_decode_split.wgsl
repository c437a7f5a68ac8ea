// attention_decode_split: softmax attention of single queries over a part of their keys; attention_decode_combine
// combines the parts. A workgroup processes one split of a row's keys for HEADS_TOGETHER query heads with the same kv
// head, so that keys and values are read once for these heads.
//   q (N, HEADS DIM)  kv (M, 2 KV_HEADS DIM)  spans (N, 4)
//   ->   part_stats (N, HEADS, splits) pairs: (largest score, Σ exp(s_j - largest))  =
//        part_sums (N, HEADS, splits, DIM): Σ exp(s_j - largest) v_j  =
// for splits that have keys, the first ones; the others are not written. A split has at least `least_keys` (1 or more)
// keys, so that few keys take few workgroups and the rest return immediately.
// s_j = scale q·k_j (SOFT_CAP: soft_cap tanh(s_j / soft_cap)) over the keys that the query attends to (WINDOW: the last
// `window`).
// A lane processes vector w of every SLOTS-th key, so that adjacent lanes read adjacent vectors.
//#include attention

// The number of keys in each split of a query's keys; the last split may have fewer, and splits after it none.
fn keys_per_split(keys: u32) -> u32 {
    return max((keys + params.splits - 1u) / params.splits, params.least_keys);
}

const SLOTS = LANES / WIDTH;
const HEAD_SETS = HEADS / HEADS_TOGETHER;
// Scores per slot at a time.
const SCORES = KEYS_PER_LANE * HEADS_TOGETHER;
// Odd, so that lanes that sum different scores use different banks.
const PRODUCTS_STRIDE = WIDTH | 1u;
var<workgroup> queries: array<vec4<f32>, HEADS_TOGETHER * WIDTH>;
// Products of the vectors of a query and a key, by slot, key and head; their sum, the score, replaces the first.
var<workgroup> products: array<f32, SLOTS * SCORES * PRODUCTS_STRIDE>;
// Scratch for sums over the slots.
var<workgroup> slot_stats: array<vec2<f32>, SLOTS * HEADS_TOGETHER>;
var<workgroup> slot_sums: array<vec4<f32>, SLOTS * WIDTH>;

fn score_of(products_sum: f32) -> f32 {
    return capped(vec4(params.scale * products_sum)).x;
}

@compute @workgroup_size(LANES)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let split = group % params.splits;
    let head = group / params.splits % HEAD_SETS * HEADS_TOGETHER;
    let n = group / params.splits / HEAD_SETS;
    if (group >= step.end || n >= extent(params.rows)) {
        return;
    }
    let span = seen_keys(spans[n]);
    let keys = key_count(span);
    let share = keys_per_split(keys);
    let first = split * share;
    let end = min(keys, first + share);
    if (first >= end) {
        return;
    }
    // Lanes that do not form a whole slot repeat the work of the last slot, and write nothing.
    let slot = min(lane / WIDTH, SLOTS - 1u);
    let w = lane % WIDTH;
    let spare = lane >= SLOTS * WIDTH;
    let kv_at = head / SHARED * WIDTH + w;
    for (var i = lane; i < HEADS_TOGETHER * WIDTH; i += LANES) {
        queries[i] = q[n * Q_STRIDE + head * WIDTH + i];
    }
    var largest: array<f32, HEADS_TOGETHER>;
    var total: array<f32, HEADS_TOGETHER>;
    var sums: array<vec4<f32>, HEADS_TOGETHER>;
    for (var h = 0u; h < HEADS_TOGETHER; h++) {
        largest[h] = NOTHING;
    }
    workgroupBarrier();
    for (var tile = first; tile < end; tile += SLOTS * KEYS_PER_LANE) {
        var keys_w: array<vec4<f32>, KEYS_PER_LANE>;
        var values_w: array<vec4<f32>, KEYS_PER_LANE>;
        for (var k = 0u; k < KEYS_PER_LANE; k++) {
            let row = key_row(span, min(tile + k * SLOTS + slot, end - 1u));
            keys_w[k] = kv[row * KV_STRIDE + KEYS_AT + kv_at];
            values_w[k] = kv[row * KV_STRIDE + VALUES_AT + kv_at];
        }
        for (var h = 0u; h < HEADS_TOGETHER; h++) {
            let query = queries[h * WIDTH + w];
            for (var k = 0u; k < KEYS_PER_LANE; k++) {
                if (!spare) {
                    products[(slot * SCORES + k * HEADS_TOGETHER + h) * PRODUCTS_STRIDE + w] = dot(query, keys_w[k]);
                }
            }
        }
        workgroupBarrier();
        for (var i = lane; i < SLOTS * SCORES; i += LANES) {
            var sum = 0.0;
            for (var v = 0u; v < WIDTH; v++) {
                sum += products[i * PRODUCTS_STRIDE + v];
            }
            products[i * PRODUCTS_STRIDE] = score_of(sum);
        }
        workgroupBarrier();
        for (var h = 0u; h < HEADS_TOGETHER; h++) {
            var scores: array<f32, KEYS_PER_LANE>;
            var top = largest[h];
            for (var k = 0u; k < KEYS_PER_LANE; k++) {
                let score = products[(slot * SCORES + k * HEADS_TOGETHER + h) * PRODUCTS_STRIDE];
                scores[k] = select(NOTHING, score, tile + k * SLOTS + slot < end);
                top = max(top, scores[k]);
            }
            let base = max(top, LOWEST);
            let kept = exp(largest[h] - base);
            largest[h] = top;
            total[h] *= kept;
            sums[h] *= kept;
            for (var k = 0u; k < KEYS_PER_LANE; k++) {
                let weight = exp(scores[k] - base);
                total[h] += weight;
                sums[h] = fma(vec4(weight), values_w[k], sums[h]);
            }
        }
        workgroupBarrier();
    }
    for (var h = 0u; h < HEADS_TOGETHER; h++) {
        if (w == 0u && !spare) {
            slot_stats[slot * HEADS_TOGETHER + h] = vec2(largest[h], total[h]);
        }
    }
    workgroupBarrier();
    for (var h = 0u; h < HEADS_TOGETHER; h++) {
        var top = largest[h];
        for (var s = 0u; s < SLOTS; s++) {
            top = max(top, slot_stats[s * HEADS_TOGETHER + h].x);
        }
        if (!spare) {
            slot_sums[slot * WIDTH + w] = exp(largest[h] - top) * sums[h];
        }
        workgroupBarrier();
        if (lane < WIDTH) {
            var sum = vec4<f32>();
            var weight = 0.0;
            for (var s = 0u; s < SLOTS; s++) {
                let stat = slot_stats[s * HEADS_TOGETHER + h];
                sum += slot_sums[s * WIDTH + w];
                weight += exp(stat.x - top) * stat.y;
            }
            let part = (n * HEADS + head + h) * params.splits + split;
            part_sums[part * WIDTH + w] = sum;
            if (w == 0u) {
                part_stats[part] = vec2(top, weight);
            }
        }
        workgroupBarrier();
    }
}
