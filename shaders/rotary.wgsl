// rotary: rotates the queries and keys of qkv in place by the angles of their positions (Su et al. 2021, arXiv
// 2104.09864), or (BACKWARD) rotates their gradients back; one pair of elements per invocation.
//   qkv (N, O)  spans (N, 4)  table (positions, ROTATED): cosines, then sines   ->   qkv (N, O)  =
//   with CACHE also   kv (M, 2 KV_HEADS DIM)  = keys and values, at the row of the query's last key
// The first ROTATED elements of a head are rotated: i with i + ROTATED / 2, or (INTERLEAVED) 2 i with 2 i + 1.
// O = (HEADS + 2 KV_HEADS) DIM. A row's position is the number of keys before its own, which is the last, plus
// `before`.
// before: number of keys that precede those of every span
//#include spans

const OUTPUTS = (HEADS + 2u * KV_HEADS) * DIM;
const ROTATED_PAIRS = ROTATED / 2u;
// Pairs per head, and per row: the rotated ones, with CACHE also all of keys and values.
const HEAD_PAIRS = select(ROTATED_PAIRS, DIM / 2u, CACHE);
const PAIRS = (HEADS + select(KV_HEADS, 2u * KV_HEADS, CACHE)) * HEAD_PAIRS;

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let row = group / GROUPS_PER_ROW;
    let pair = group % GROUPS_PER_ROW * 64u + lane;
    if (group >= step.end || row >= extent(params.rows) || pair >= PAIRS) {
        return;
    }
    let head = pair / HEAD_PAIRS;
    let i = pair % HEAD_PAIRS;
    let is_rotated = i < ROTATED_PAIRS && head < HEADS + KV_HEADS;
    var low = head * DIM;
    var high = head * DIM;
    if (i < ROTATED_PAIRS && !INTERLEAVED) {
        low += i;
        high += i + ROTATED_PAIRS;
    } else {
        low += 2u * i;
        high += 2u * i + 1u;
    }
    let at = row * OUTPUTS;
    let span = spans[row];
    var value = vec2(qkv[at + low], qkv[at + high]);
//#if ROTATED
    if (is_rotated) {
        let angles = (extent(params.before) + max(key_count(span), 1u) - 1u) * ROTATED;
        let cosine = table[angles + i];
        let sine = select(table[angles + ROTATED_PAIRS + i], -table[angles + ROTATED_PAIRS + i], BACKWARD);
        value = vec2(value.x * cosine - value.y * sine, value.y * cosine + value.x * sine);
        qkv[at + low] = value.x;
        qkv[at + high] = value.y;
    }
//#end
//#if CACHE
    if (head >= HEADS && key_count(span) > 0u) {
        let to = (span.w - 1u) * 2u * KV_HEADS * DIM - HEADS * DIM;
        kv[to + low] = value.x;
        kv[to + high] = value.y;
    }
//#end
}
