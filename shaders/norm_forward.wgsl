// norm_forward: y = (x - mean) inverse weight (+ bias), separately for each of `groups` groups of a row's columns:
// inverse = 1 / sqrt(mean((x - mean)²) + eps) (Zhang and Sennrich 2019, arXiv 1910.07467). With LAYER, mean is that of
// x (Ba et al. 2016, arXiv 1607.06450), otherwise 0; with UNIT_OFFSET, weight stands for 1 + weight.
//   x (N, stride): groups of `cols` columns, the first at `first`  weight, bias (cols)
//   ->   y (N, stride): the same columns  =   inverse, mean (N · groups)  =
// WIDE: one group per workgroup, otherwise per invocation.
//#include workgroup_sum

// x - mean for elements k to k + 3 of the group at `at`; 0 beyond its end.
fn deviation(at: u32, k: u32, centre: f32) -> vec4<f32> {
    let inside = vec4(k, k + 1u, k + 2u, k + 3u) < vec4(params.cols);
    return select(vec4<f32>(), load_x(at, k, params.cols) - centre, inside);
}

fn sum_of(lane: u32, sum: f32) -> f32 {
//#if WIDE
    return workgroup_sum(lane, sum);
//#else
    return sum;
//#end
}

@compute @workgroup_size(64)
fn main(workgroup: Workgroup, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    if (group >= step.end) {
        return;
    }
    let row = select(group * 64u + lane, group, WIDE);
    let alive = row < extent(params.rows) * params.groups;
    let cols = select(0u, params.cols, alive);
    let first = select(0u, lane * 4u, WIDE);
    let stride = select(4u, 256u, WIDE);
    let at = row / params.groups * params.stride + params.first + row % params.groups * params.cols;
    var centre = 0.0;
//#if LAYER
    var total = 0.0;
    for (var k = first; k < cols; k += stride) {
        total += dot(deviation(at, k, 0.0), vec4(1.0));
    }
    centre = sum_of(lane, total) / f32(params.cols);
//#end
    var squares = 0.0;
    for (var k = first; k < cols; k += stride) {
        let v = deviation(at, k, centre);
        squares += dot(v, v);
    }
    let factor = 1.0 / sqrt(sum_of(lane, squares) / f32(params.cols) + params.eps);
    for (var k = first; k < cols; k += stride) {
        var w = load_weight(0u, k, params.cols);
        if (UNIT_OFFSET) {
            w += 1.0;
        }
        var value = deviation(at, k, centre) * factor * w;
//#if BIAS
        value += load_bias(0u, k, params.cols);
//#end
        store_y(at + k, value, min(4u, params.cols - k));
    }
    if (alive && first == 0u) {
        inverse[row] = factor;
//#if LAYER
        mean[row] = centre;
//#end
    }
}
