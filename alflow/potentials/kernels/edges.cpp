// Sums over the edges of every atom: the density of neighbours and the messages.
//
// Each operation comes as value, as tangent (its change along a displacement v of the edge vectors) and as adjoint (the
// gradient of what follows, carried back to its arguments). Edges stand in rows by centre; whatever depends on the
// distance and direction of an edge is given with its derivatives, so that
//
//     dg_n = g'_n (u . v)        dY_m = sum_x dY_m/dx v_x .
//
// Features are (members, components, rows, channels): rows are the N atoms, or, with tangents, N values and then N
// tangents. One vector register holds the channels c ... c + VL - 1 of one component of one atom.

// Vectors that hold a number for every component of one edge, and those with one number more, for the distance.
enum { SV = (S + VL - 1) / VL, ALONG = S / VL + 1 };

struct Edges {
    i64 n_atoms, n_edges;
    const i64 *first;      // (N + 1) where the edges of a centre begin
    const i64 *neighbour;  // (E)
    const real *radial, *radial_slope;    // (E, NB)    g, dg/dr
    const real *angular, *angular_slope;  // (E, S), (E, 3, S)    Y, dY/dv
    const real *direction;                // (E, 3)    u
};

// What a displacement of an edge does to its radial and angular functions.
static inline void edge_tangent(const Edges &e, i64 i, const real *v, real *dg, real *dy) {
    const real *u = e.direction + 3 * i, *slope = e.angular_slope + 3 * S * i;
    const real along = u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
    for (int b = 0; b < NB; b++) dg[b] = e.radial_slope[i * NB + b] * along;
    for (int m = 0; m < S; m++) dy[m] = slope[m] * v[0] + slope[S + m] * v[1] + slope[2 * S + m] * v[2];
}

// And its adjoint: gradients by the angular functions and by the distance become one by the edge vector.
static inline void add_to_displacement(const Edges &e, i64 i, const real *by_angular, real by_distance, real *out) {
    const real *u = e.direction + 3 * i, *slope = e.angular_slope + 3 * S * i;
    real x = 0, y = 0, z = 0;
    SUM(x, y, z) for (int m = 0; m < S; m++) {
        x += by_angular[m] * slope[m];
        y += by_angular[m] * slope[S + m];
        z += by_angular[m] * slope[2 * S + m];
    }
    out[0] += x + by_distance * u[0], out[1] += y + by_distance * u[1], out[2] += z + by_distance * u[2];
}

// ---- forces: what pulls at the edges, summed for atoms and structures --------------------------------------------------
// F_i = sum of the pulls at the edges of centre i - those at edges to neighbour i; W_ab = sum of r_a pull_b of all edges of
// a structure, ab in Voigt order. `displace` is the adjoint: how edges move with given displacements and strains.

static const int VOIGT[6][2] = {{0, 0}, {1, 1}, {2, 2}, {1, 2}, {0, 2}, {0, 1}};

// pull (K, E, 3) -> forces (K, N, 3) and virial (K, structures, 6), added
extern "C" void collect(const Edges *edges, const i64 *structure, i64 structures, const real *vectors, const real *pull,
                        real *forces, real *virial, i64 members) {
    const Edges &e = *edges;
    for (i64 k = 0; k < members; k++)
        for (i64 n = 0; n < e.n_atoms; n++) {
            real force[3] = {0}, sum[3][3] = {{0}};
            for (i64 i = e.first[n]; i < e.first[n + 1]; i++) {
                const real *p = pull + (k * e.n_edges + i) * 3, *r = vectors + i * 3;
                real *other = forces + (k * e.n_atoms + e.neighbour[i]) * 3;
                for (int b = 0; b < 3; b++) force[b] += p[b], other[b] -= p[b];
                for (int a = 0; a < 3; a++)
                    for (int b = 0; b < 3; b++) sum[a][b] += r[a] * p[b];
            }
            for (int b = 0; b < 3; b++) forces[(k * e.n_atoms + n) * 3 + b] += force[b];
            for (int v = 0; v < 6; v++) virial[(k * structures + structure[n]) * 6 + v] += sum[VOIGT[v][0]][VOIGT[v][1]];
        }
}

// forces (K, N, 3) and virial (K, structures, 6) -> moved (K, E, 3)
extern "C" void displace(const Edges *edges, const i64 *structure, i64 structures, const real *vectors, const real *forces,
                         const real *virial, real *moved, i64 members) {
    const Edges &e = *edges;
    for (i64 k = 0; k < members; k++)
        for (i64 n = 0; n < e.n_atoms; n++) {
            const real *force = forces + (k * e.n_atoms + n) * 3, *w = virial + (k * structures + structure[n]) * 6;
            real strain[3][3] = {{0}};
            for (int v = 0; v < 6; v++) strain[VOIGT[v][0]][VOIGT[v][1]] = w[v];
            for (i64 i = e.first[n]; i < e.first[n + 1]; i++) {
                const real *r = vectors + i * 3, *other = forces + (k * e.n_atoms + e.neighbour[i]) * 3;
                for (int b = 0; b < 3; b++)
                    moved[(k * e.n_edges + i) * 3 + b] =
                        force[b] - other[b] + r[0] * strain[0][b] + r[1] * strain[1][b] + r[2] * strain[2][b];
            }
        }
}

// ---- density: D[m, r, n] = sum over the edges of row r of g_n Y_m -----------------------------------------------------
// A row holds the edges of one centre to the neighbours of one species.

static void store_row(const real *sums, real *out, i64 r, i64 rows) {
    for (int m = 0; m < S; m++) std::memcpy(out + (m * rows + r) * NB, sums + m * NB, NB * sizeof(real));
}

extern "C" void density_value(const Edges *edges, const i64 *first, i64 rows, real *out) {
    const Edges &e = *edges;
    for (i64 r = 0; r < rows; r++) {
        real sums[S * NB] = {0};
        for (i64 i = first[r]; i < first[r + 1]; i++)
            for (int m = 0; m < S; m++)
                for (int b = 0; b < NB; b++) sums[m * NB + b] += e.angular[i * S + m] * e.radial[i * NB + b];
        store_row(sums, out, r, rows);
    }
}

// v (K, E, 3) -> (K, S, rows, NB)
extern "C" void density_tangent(const Edges *edges, const i64 *first, i64 rows, const real *v, real *out, i64 members) {
    const Edges &e = *edges;
    for (i64 k = 0; k < members; k++)
        for (i64 r = 0; r < rows; r++) {
            real sums[S * NB] = {0}, dg[NB], dy[S];
            for (i64 i = first[r]; i < first[r + 1]; i++) {
                edge_tangent(e, i, v + (k * e.n_edges + i) * 3, dg, dy);
                for (int m = 0; m < S; m++)
                    for (int b = 0; b < NB; b++)
                        sums[m * NB + b] += e.angular[i * S + m] * dg[b] + dy[m] * e.radial[i * NB + b];
            }
            store_row(sums, out + k * S * rows * NB, r, rows);
        }
}

// gradient (K, S, rows, NB) -> (K, E, 3), added
extern "C" void density_adjoint(const Edges *edges, const i64 *first, i64 rows, const real *gradient, real *out,
                                i64 members) {
    const Edges &e = *edges;
    for (i64 k = 0; k < members; k++)
        for (i64 r = 0; r < rows; r++) {
            if (first[r] == first[r + 1]) continue;
            real given[NB * SV * VL] = {0};  // components side by side, filled up to whole vectors
            for (int m = 0; m < S; m++)
                for (int b = 0; b < NB; b++) given[b * SV * VL + m] = gradient[((k * S + m) * rows + r) * NB + b];
            for (i64 i = first[r]; i < first[r + 1]; i++) {
                V angular[SV] = {}, distance[SV] = {};
                UNROLL for (int b = 0; b < NB; b++) {
                    const real g = e.radial[i * NB + b], dg = e.radial_slope[i * NB + b];
                    UNROLL for (int v = 0; v < SV; v++) {
                        const V part = load(given + (b * SV + v) * VL);
                        angular[v] += g * part, distance[v] += dg * part;
                    }
                }
                real by_angular[SV * VL], by_distance[SV * VL], along = 0;
                UNROLL for (int v = 0; v < SV; v++) {
                    store(by_angular + v * VL, angular[v]);
                    store(by_distance + v * VL, distance[v]);
                }
                SUM(along) for (int m = 0; m < S; m++) along += by_distance[m] * e.angular[i * S + m];
                add_to_displacement(e, i, by_angular, along, out + (k * e.n_edges + i) * 3);
            }
        }
}

// ---- message: M[lm, i, c] = sum_j R_lc(r_ij) Y_lm s_jc, and for degrees 1 ... LH also R'_lc(r_ij) h_j,lm,c -------------
// R_lc = sum_n g_n w[n, l, c] of the edges of one centre is one small matrix product, kept while that centre is worked on.
// The NR = L + 1 + LH radial functions of a channel are those of the scalars by degree, then those of the tensors h by
// degree.

struct Message {
    const Edges *edges;
    i64 members, rows, channels;  // rows: N, or 2 N with tangents
    const real *scalars;          // (K, rows, C)
    const real *tensors;          // (K, H, rows, C), H = (LH + 1)^2 - 1
    const real *weights;          // (K, NB, NR, C)
    real *out;                    // (K, S, rows, C); for the adjoints the gradient by it
    const real *displacement;     // (K, E, 3), with tangents
    real *scalars_gradient, *tensors_gradient, *weights_gradient;  // added
    real *displacement_gradient;                                   // (K, E, 3), added
};

// The edges of one centre: their functions, and R (edges, NR, C) for one member; with tangents or slopes also of these.
struct Star {
    i64 first, size;
    std::vector<real> dg, dy, radial, dradial, by_radial, by_dradial, gradient;

    explicit Star(const Message &q) {
        const i64 C = q.channels;
        i64 most = 0;
        for (i64 n = 0; n < q.edges->n_atoms; n++)
            if (q.edges->first[n + 1] - q.edges->first[n] > most) most = q.edges->first[n + 1] - q.edges->first[n];
        dg.resize(most * NB), dy.resize(most * S), radial.resize(most * NR * C), dradial.resize(most * NR * C);
        by_radial.resize(most * NR * C), by_dradial.resize(most * NR * C), gradient.resize(2 * S * C);
    }
    // The gradient by what one centre receives, side by side: its components lie far apart, often in one cache set.
    void gather(const Message &q, i64 k, i64 n) {
        for (i64 m = 0; m < S; m++)
            for (i64 set = 0; set * q.edges->n_atoms < q.rows; set++)
                std::memcpy(&gradient[(set * S + m) * q.channels],
                            q.out + ((k * S + m) * q.rows + set * q.edges->n_atoms + n) * q.channels, q.channels * sizeof(real));
    }
    void weigh(const Message &q, i64 k, const real *functions, std::vector<real> &to) const {
        const i64 columns = NR * q.channels;
        multiply(size, columns, NB, functions, NB, 1, q.weights + k * NB * columns, columns, to.data(), columns, false);
    }
    void set(const Message &q, i64 n) { first = q.edges->first[n], size = q.edges->first[n + 1] - first; }
    void set_values(const Message &q, i64 k) { weigh(q, k, q.edges->radial + first * NB, radial); }
    void set_slopes(const Message &q, i64 k) { weigh(q, k, q.edges->radial_slope + first * NB, dradial); }
    void set_tangents(const Message &q, i64 k) {
        for (i64 i = 0; i < size; i++)
            edge_tangent(*q.edges, first + i, q.displacement + (k * q.edges->n_edges + first + i) * 3, &dg[i * NB], &dy[i * S]);
        weigh(q, k, dg.data(), dradial);
    }
};

template <int l> static void value_degree(const Message &q, const Star &star, i64 k, i64 n, i64 c) {
    const i64 C = q.channels, N = q.edges->n_atoms;
    V sum[2 * l + 1] = {};
    for (i64 i = 0; i < star.size; i++) {
        const i64 j = q.edges->neighbour[star.first + i];
        const real *y = q.edges->angular + (star.first + i) * S + l * l, *radial = &star.radial[(i * NR + l) * C + c];
        const V sent = load(radial) * load(q.scalars + (k * N + j) * C + c);
        UNROLL for (int m = 0; m < 2 * l + 1; m++) sum[m] += y[m] * sent;
        if constexpr (l >= 1 && l <= LH) {
            const V carry = load(radial + L * C);
            UNROLL for (int m = 0; m < 2 * l + 1; m++)
                sum[m] += carry * load(q.tensors + ((k * H + l * l - 1 + m) * N + j) * C + c);
        }
    }
    UNROLL for (int m = 0; m < 2 * l + 1; m++) store(q.out + ((k * S + l * l + m) * N + n) * C + c, sum[m]);
    if constexpr (l < L) value_degree<l + 1>(q, star, k, n, c);
}

extern "C" void message_value(const Message *given) {
    const Message &q = *given;
    Star star(q);
    for (i64 k = 0; k < q.members; k++)
        for (i64 n = 0; n < q.edges->n_atoms; n++) {
            star.set(q, n);
            star.set_values(q, k);
            for (i64 c = 0; c < q.channels; c += VL) value_degree<0>(q, star, k, n, c);
        }
}

template <int l> static void tangent_degree(const Message &q, const Star &star, i64 k, i64 n, i64 c) {
    const i64 C = q.channels, N = q.edges->n_atoms;
    V sum[2 * l + 1] = {}, dsum[2 * l + 1] = {};
    for (i64 i = 0; i < star.size; i++) {
        const i64 edge = star.first + i, j = q.edges->neighbour[edge], at = (i * NR + l) * C + c;
        const real *y = q.edges->angular + edge * S + l * l, *dy = &star.dy[i * S + l * l];
        const real *s = q.scalars + (k * 2 * N + j) * C + c;
        const V radial = load(&star.radial[at]), sent = radial * load(s);
        const V dsent = load(&star.dradial[at]) * load(s) + radial * load(s + N * C);
        UNROLL for (int m = 0; m < 2 * l + 1; m++) {
            sum[m] += y[m] * sent;
            dsum[m] += y[m] * dsent + dy[m] * sent;
        }
        if constexpr (l >= 1 && l <= LH) {
            const V carry = load(&star.radial[at + L * C]), dcarry = load(&star.dradial[at + L * C]);
            UNROLL for (int m = 0; m < 2 * l + 1; m++) {
                const real *h = q.tensors + ((k * H + l * l - 1 + m) * 2 * N + j) * C + c;
                sum[m] += carry * load(h);
                dsum[m] += dcarry * load(h) + carry * load(h + N * C);
            }
        }
    }
    UNROLL for (int m = 0; m < 2 * l + 1; m++) {
        real *out = q.out + ((k * S + l * l + m) * 2 * N + n) * C + c;
        store(out, sum[m]);
        store(out + N * C, dsum[m]);
    }
    if constexpr (l < L) tangent_degree<l + 1>(q, star, k, n, c);
}

extern "C" void message_tangent(const Message *given) {
    const Message &q = *given;
    Star star(q);
    for (i64 k = 0; k < q.members; k++)
        for (i64 n = 0; n < q.edges->n_atoms; n++) {
            star.set(q, n);
            star.set_values(q, k);
            star.set_tangents(q, k);
            for (i64 c = 0; c < q.channels; c += VL) tangent_degree<0>(q, star, k, n, c);
        }
}

// Gradients of the value by scalars, tensors and edge vectors; the weights are constants here. What an edge vector does
// is still to be summed over the channels: `turn` (S) by the angular functions, the result by the distance.
template <int l> static inline V adjoint_degree(const Message &q, const Star &star, i64 k, i64 i, V *turn) {
    const i64 C = q.channels, N = q.edges->n_atoms, edge = star.first + i, j = q.edges->neighbour[edge];
    const real *y = q.edges->angular + edge * S + l * l, *s = q.scalars + (k * N + j) * C;
    const real *gradient = &star.gradient[l * l * C];
    const real *radial = &star.radial[(i * NR + l) * C], *dradial = &star.dradial[(i * NR + l) * C];
    real *by_scalar = q.scalars_gradient + (k * N + j) * C;
    V along = {}, sum[2 * l + 1] = {};
    for (i64 c = 0; c < C; c += VL) {
        const V value = load(s + c), sent = load(radial + c) * value;
        V inner = {};
        UNROLL for (int m = 0; m < 2 * l + 1; m++) {
            const V a = load(gradient + m * C + c);
            inner += y[m] * a;
            if constexpr (l > 0) sum[m] += sent * a;
        }
        add(by_scalar + c, load(radial + c) * inner);
        along += load(dradial + c) * value * inner;
        if constexpr (l >= 1 && l <= LH) {
            V product = {};
            UNROLL for (int m = 0; m < 2 * l + 1; m++) {
                const i64 at = ((k * H + l * l - 1 + m) * N + j) * C + c;
                const V a = load(gradient + m * C + c);
                add(q.tensors_gradient + at, load(radial + L * C + c) * a);
                product += load(q.tensors + at) * a;
            }
            along += load(dradial + L * C + c) * product;
        }
    }
    UNROLL for (int m = 0; m < 2 * l + 1; m++) turn[l * l + m] = sum[m];
    if constexpr (l < L) along += adjoint_degree<l + 1>(q, star, k, i, turn);
    return along;
}

extern "C" void message_adjoint(const Message *given) {
    const Message &q = *given;
    Star star(q);
    for (i64 k = 0; k < q.members; k++)
        for (i64 n = 0; n < q.edges->n_atoms; n++) {
            star.set(q, n);
            star.set_values(q, k);
            star.set_slopes(q, k);
            star.gather(q, k, n);
            for (i64 i = 0; i < star.size; i++) {
                const i64 edge = star.first + i;
                V turn[ALONG * VL] = {};
                real sums[ALONG * VL];
                turn[S] = adjoint_degree<0>(q, star, k, i, turn);
                UNROLL for (int v = 0; v < ALONG; v++) store(sums + v * VL, totals(turn + v * VL));
                add_to_displacement(*q.edges, edge, sums, sums[S], q.displacement_gradient + (k * q.edges->n_edges + edge) * 3);
            }
        }
}

// Gradients of value and tangent together by scalars, tensors, R and dR; the displacement is a constant here.
template <int l> static void tangent_adjoint_degree(const Message &q, Star &star, i64 k, i64 c) {
    const i64 C = q.channels, N = q.edges->n_atoms;
    V a[2 * l + 1], da[2 * l + 1];
    UNROLL for (int m = 0; m < 2 * l + 1; m++) {
        const real *gradient = &star.gradient[(l * l + m) * C + c];
        a[m] = load(gradient), da[m] = load(gradient + S * C);
    }
    for (i64 i = 0; i < star.size; i++) {
        const i64 edge = star.first + i, j = q.edges->neighbour[edge], at = (i * NR + l) * C + c;
        const i64 scalar = (k * 2 * N + j) * C + c;
        const real *y = q.edges->angular + edge * S + l * l, *dy = &star.dy[i * S + l * l];
        const V radial = load(&star.radial[at]), dradial = load(&star.dradial[at]);
        const V s = load(q.scalars + scalar), ds = load(q.scalars + scalar + N * C);
        V value = {}, tangent = {};
        UNROLL for (int m = 0; m < 2 * l + 1; m++) {
            value += y[m] * a[m] + dy[m] * da[m];
            tangent += y[m] * da[m];
        }
        add(q.scalars_gradient + scalar, radial * value + dradial * tangent);
        add(q.scalars_gradient + scalar + N * C, radial * tangent);
        store(&star.by_radial[at], s * value + ds * tangent);
        store(&star.by_dradial[at], s * tangent);
        if constexpr (l >= 1 && l <= LH) {
            const V carry = load(&star.radial[at + L * C]), dcarry = load(&star.dradial[at + L * C]);
            V by_carry = {}, by_dcarry = {};
            UNROLL for (int m = 0; m < 2 * l + 1; m++) {
                const i64 tensor = ((k * H + l * l - 1 + m) * 2 * N + j) * C + c;
                const V h = load(q.tensors + tensor), dh = load(q.tensors + tensor + N * C);
                add(q.tensors_gradient + tensor, carry * a[m] + dcarry * da[m]);
                add(q.tensors_gradient + tensor + N * C, carry * da[m]);
                by_carry += h * a[m] + dh * da[m];
                by_dcarry += h * da[m];
            }
            store(&star.by_radial[at + L * C], by_carry);
            store(&star.by_dradial[at + L * C], by_dcarry);
        }
    }
    if constexpr (l < L) tangent_adjoint_degree<l + 1>(q, star, k, c);
}

extern "C" void message_tangent_adjoint(const Message *given) {
    const Message &q = *given;
    const i64 columns = NR * q.channels;
    Star star(q);
    for (i64 k = 0; k < q.members; k++)
        for (i64 n = 0; n < q.edges->n_atoms; n++) {
            star.set(q, n);
            star.set_values(q, k);
            star.set_tangents(q, k);
            star.gather(q, k, n);
            for (i64 c = 0; c < q.channels; c += VL) tangent_adjoint_degree<0>(q, star, k, c);
            real *out = q.weights_gradient + k * NB * columns;
            const real *g = q.edges->radial + star.first * NB;
            multiply(NB, columns, star.size, g, 1, NB, star.by_radial.data(), columns, out, columns, true);
            multiply(NB, columns, star.size, star.dg.data(), 1, NB, star.by_dradial.data(), columns, out, columns, true);
        }
}
