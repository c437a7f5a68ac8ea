// Goes through the keys START to END of KV, whose rows are STRIDE long and have their keys at KEYS_AT: sum, total and
// largest become what they are with these keys as well.
//#if SUBGROUP
// Adjacent queries of one head go through the keys that any of them sees together: each lane loads a key.
{
    let first_key = subgroupMin(select(NO_KEY, ${START}, ${START} < ${END}));
    let last_key = subgroupMax(select(0u, ${END}, ${START} < ${END}));
    for (var j = first_key; j < last_key; j += LANES) {
        let at = min(j + lane, last_key - 1u) * ${STRIDE} + ${KEYS_AT} + kv_at;
        var key: array<vec4<f32>, WIDTH>;
        var value: array<vec4<f32>, WIDTH>;
        for (var w = 0u; w < WIDTH; w++) {
            key[w] = ${KV}[at + w];
            value[w] = ${KV}[at + KV_HEADS * WIDTH + w];
        }
        // Key by key, and keys that a query does not see change nothing: its result does not depend on its neighbours.
//#for l in LANES
        {
            let seen = j + ${l}u >= ${START} && j + ${l}u < ${END};
            var s = 0.0;
            for (var w = 0u; w < WIDTH; w++) {
                s += dot(query[w], subgroupBroadcast(key[w], ${l}u));
            }
            let rises = seen && s > largest;
            let kept = select(1.0, exp(largest - s), rises);
            largest = select(largest, s, rises);
            let p = select(0.0, exp(s - largest), seen);
            total = fma(total, kept, p);
            for (var w = 0u; w < WIDTH; w++) {
                sum[w] = fma(vec4(p), subgroupBroadcast(value[w], ${l}u), sum[w] * kept);
            }
        }
//#end
    }
}
//#else
// Four keys a turn share the update of the largest score. Past the last key, it is repeated with no weight.
for (var j = ${START}; j < ${END}; j += 4u) {
    let key_rows = min(vec4(j, j + 1u, j + 2u, j + 3u), vec4(${END} - 1u));
    let base = key_rows * ${STRIDE} + ${KEYS_AT} + kv_at;
    var s = vec4<f32>();
    for (var w = 0u; w < WIDTH; w++) {
        let x = query[w];
        s += vec4(
            dot(x, ${KV}[base.x + w]),
            dot(x, ${KV}[base.y + w]),
            dot(x, ${KV}[base.z + w]),
            dot(x, ${KV}[base.w + w]),
        );
    }
    s = select(vec4(NOTHING), s, vec4(j, j + 1u, j + 2u, j + 3u) < vec4(${END}));
    let top = max(largest, max(max(s.x, s.y), max(s.z, s.w)));
    let kept = exp(largest - top);
    let p = exp(s - top);
    largest = top;
    total = total * kept + p.x + p.y + p.z + p.w;
    let value = base + vec4(KV_HEADS * WIDTH);
    for (var w = 0u; w < WIDTH; w++) {
        sum[w] = sum[w] * kept + p.x * ${KV}[value.x + w] + p.y * ${KV}[value.y + w] + p.z * ${KV}[value.z + w]
            + p.w * ${KV}[value.w + w];
    }
}
//#end
