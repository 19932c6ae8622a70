// The products of a layer, fused: A -> X2 = A x A -> B = X2 Wm -> X3 = B x A -> O = [A | X2 | X3 | |B|^2] Wo.
//
// A block of atoms goes through the whole chain while it lies in the cache. Of what stands between A and O only B is kept
// for the adjoint, which computes the rest again. Products with tangents treat [values; tangents] as rows of the same
// matrices. The products of components, `square` and `cube`, are generated: see _generate.py.

static void transpose(const real *from, i64 rows, i64 columns, real *to) {
    for (i64 i = 0; i < rows; i++)
        for (i64 j = 0; j < columns; j++) to[j * rows + i] = from[i * columns + j];
}

// ---- the chain --------------------------------------------------------------------------------------------------------

struct Product {
    i64 members, atoms, channels;
    int with_tangents, adjoint;
    const real *density;                    // A (K, S, rows, C), rows = N or 2 N
    const real *const *mix, *const *out;    // per degree Wm (K, n2 C, C) and Wo (K, paths C, C)
    real *mixed;                            // B (K, SP, rows, C); written by the value, read by the adjoint
    real *features;                         // O (K, degrees, rows, C); for the adjoint the gradient by it
    real *density_gradient;                 // (K, S, rows, C)
    real *const *mix_gradient, *const *out_gradient;  // added; null: not wanted
};

// Buffers of one block.
class Arena {
    std::vector<std::vector<real>> parts;

   public:
    real *take(i64 size) {
        parts.emplace_back(size);
        return parts.back().data();
    }
};

// `n3` paths of the third factor by degree up to `top`; those of degree 0 end with the LP + 1 squared norms.
static void product(const Product &q, int top, const i64 *n3, const Map *cube) {
    const i64 C = q.channels, sets = q.with_tangents ? 2 : 1, rows = sets * q.atoms, features = (top + 1) * (top + 1);
    const i64 BLOCK = q.with_tangents ? 12 : 24;  // a multiple of TILE_ROWS; the buffers fill half of a second-level cache
    Arena arena;
    real *a = arena.take(S * sets * BLOCK * C), *b = arena.take(SP * sets * BLOCK * C);
    real *ga2 = nullptr, *ga3 = nullptr, *gb = nullptr;
    if (q.adjoint)
        ga2 = arena.take(S * sets * BLOCK * C), ga3 = arena.take(S * sets * BLOCK * C), gb = arena.take(SP * sets * BLOCK * C);
    const real *factors[] = {b, a};
    real *gradients3[] = {gb, ga3}, *gradients2[] = {ga2};
    const int value = q.with_tangents ? TANGENT : VALUE, adjoint = q.with_tangents ? TANGENT_ADJOINT : ADJOINT;
    // [A | X2 | X3] side by side where a degree is put out, X2 alone where it is not
    i64 width[LP + 1];
    real *all[LP + 1], *x2[LP + 1], *x3[LP + 1], *gall[LP + 1], *gx2[LP + 1], *gx3[LP + 1], *mixT[LP + 1], *outT[LP + 1], *o[LP + 1];
    for (int l = 0; l <= LP; l++) {
        const bool used = l <= top;
        width[l] = C * (used ? 1 + N2[l] + n3[l] : N2[l]);
        const i64 size = sets * BLOCK * (2 * l + 1);
        all[l] = arena.take(size * width[l]);
        x2[l] = all[l] + (used ? C : 0), x3[l] = all[l] + (1 + N2[l]) * C;
        if (used) o[l] = arena.take(size * C);
        if (!q.adjoint) continue;
        gall[l] = arena.take(size * width[l]);
        gx2[l] = gall[l] + (used ? C : 0), gx3[l] = gall[l] + (1 + N2[l]) * C;
        mixT[l] = arena.take(N2[l] * C * C);
        if (used) outT[l] = arena.take(width[l] * C);
    }
    for (i64 k = 0; k < q.members; k++) {
        if (q.adjoint)
            for (int l = 0; l <= LP; l++) {
                transpose(q.mix[l] + k * N2[l] * C * C, N2[l] * C, C, mixT[l]);
                if (l <= top) transpose(q.out[l] + k * width[l] * C, width[l], C, outT[l]);
            }
        for (i64 begin = 0; begin < q.atoms; begin += BLOCK) {
            const i64 atoms = q.atoms - begin < BLOCK ? q.atoms - begin : BLOCK, block = sets * atoms;
            const auto place = [&](i64 components, i64 m, i64 set) {
                return ((k * components + m) * rows + set * q.atoms + begin) * C;
            };
            const i64 bytes = atoms * C * sizeof(real);
            for (i64 m = 0; m < S; m++)
                for (i64 t = 0; t < sets; t++)
                    std::memcpy(a + (m * block + t * atoms) * C, q.density + place(S, m, t), bytes);
            if (q.adjoint)
                for (i64 m = 0; m < SP; m++)
                    for (i64 t = 0; t < sets; t++)
                        std::memcpy(b + (m * block + t * atoms) * C, q.mixed + place(SP, m, t), bytes);
            square[value](factors + 1, x2, width, nullptr, atoms, C);
            for (int l = 0; l <= LP; l++) {
                const i64 size = block * (2 * l + 1);
                if (!q.adjoint)
                    multiply(size, C, N2[l] * C, x2[l], width[l], 1, q.mix[l] + k * N2[l] * C * C, C, b + l * l * block * C, C, false);
                if (l <= top)
                    for (i64 i = 0; i < size; i++)
                        std::memcpy(all[l] + i * width[l], a + (l * l * block + i) * C, C * sizeof(real));
            }
            cube[value](factors, x3, width, nullptr, atoms, C);
            if (!q.adjoint) {
                for (i64 m = 0; m < SP; m++)
                    for (i64 t = 0; t < sets; t++)
                        std::memcpy(q.mixed + place(SP, m, t), b + (m * block + t * atoms) * C, bytes);
                for (int l = 0; l <= top; l++) {
                    multiply(block * (2 * l + 1), C, width[l], all[l], width[l], 1, q.out[l] + k * width[l] * C, C, o[l], C, false);
                    for (i64 m = 0; m < 2 * l + 1; m++)
                        for (i64 t = 0; t < sets; t++)
                            std::memcpy(q.features + place(features, l * l + m, t), o[l] + (m * block + t * atoms) * C, bytes);
                }
                continue;
            }
            for (int l = 0; l <= top; l++) {
                const i64 size = block * (2 * l + 1);
                for (i64 m = 0; m < 2 * l + 1; m++)
                    for (i64 t = 0; t < sets; t++)
                        std::memcpy(o[l] + (m * block + t * atoms) * C, q.features + place(features, l * l + m, t), bytes);
                multiply(size, width[l], C, o[l], C, 1, outT[l], width[l], gall[l], width[l], false);
                if (q.out_gradient)
                    multiply(width[l], C, size, all[l], 1, width[l], o[l], C, q.out_gradient[l] + k * width[l] * C, C, true);
            }
            cube[adjoint](factors, gx3, width, gradients3, atoms, C);
            for (int l = 0; l <= LP; l++) {
                const i64 size = block * (2 * l + 1);
                const real *g = gb + l * l * block * C;
                multiply(size, N2[l] * C, C, g, C, 1, mixT[l], N2[l] * C, gx2[l], width[l], l <= top);
                if (q.mix_gradient)
                    multiply(N2[l] * C, C, size, x2[l], 1, width[l], g, C, q.mix_gradient[l] + k * N2[l] * C * C, C, true);
            }
            square[adjoint](factors + 1, gx2, width, gradients2, atoms, C);
            for (int l = 0; l <= L; l++)
                for (i64 m = 0; m < 2 * l + 1; m++)
                    for (i64 t = 0; t < sets; t++) {
                        real *to = q.density_gradient + place(S, l * l + m, t);
                        const i64 at = ((l * l + m) * block + t * atoms) * C;
                        for (i64 i = 0; i < atoms * C; i++) to[i] = ga2[at + i] + ga3[at + i];
                        if (l <= top)
                            for (i64 n = 0; n < atoms; n++) {
                                const real *direct = gall[l] + (m * block + t * atoms + n) * width[l];
                                for (i64 c = 0; c < C; c++) to[n * C + c] += direct[c];
                            }
                    }
        }
    }
}
