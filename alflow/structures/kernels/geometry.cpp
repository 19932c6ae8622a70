// The loops of the duplicate search: lattice reduction, neighbour distances, maps between lattices, placements.
// What each function computes is defined by the plain Python beside it in alflow/structures; the tests compare both.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

using i64 = std::int64_t;

namespace {

constexpr double INFINITE = std::numeric_limits<double>::infinity();

struct Vec {
    double x, y, z;
};

inline Vec operator+(Vec a, Vec b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
inline Vec operator-(Vec a, Vec b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
inline Vec operator*(double s, Vec a) { return {s * a.x, s * a.y, s * a.z}; }
inline double dot(Vec a, Vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
inline Vec at(const double *p, i64 i) { return {p[3 * i], p[3 * i + 1], p[3 * i + 2]}; }
inline void put(double *p, i64 i, Vec a) { p[3 * i] = a.x, p[3 * i + 1] = a.y, p[3 * i + 2] = a.z; }
inline Vec cross(Vec a, Vec b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }

// A row vector times a row-major 3 x 3 matrix.
inline Vec times(Vec a, const double *m) { return a.x * at(m, 0) + a.y * at(m, 1) + a.z * at(m, 2); }

// d rows and the vectors dual to them within their span: dot(row[i], dual[j]) = (i == j).
struct Lattice {
    int d = 0;
    Vec row[3], dual[3];

    Lattice(const double *rows, int directions) : d(directions) {
        for (int i = 0; i < d; i++) row[i] = at(rows, i);
        if (d == 1) dual[0] = (1.0 / dot(row[0], row[0])) * row[0];
        if (d == 2) {
            const double aa = dot(row[0], row[0]), ab = dot(row[0], row[1]), bb = dot(row[1], row[1]);
            const double det = aa * bb - ab * ab;
            dual[0] = (bb / det) * row[0] - (ab / det) * row[1];
            dual[1] = (aa / det) * row[1] - (ab / det) * row[0];
        }
        if (d == 3) {
            const Vec bc = cross(row[1], row[2]);
            const double volume = dot(row[0], bc);
            dual[0] = (1.0 / volume) * bc;
            dual[1] = (1.0 / volume) * cross(row[2], row[0]);
            dual[2] = (1.0 / volume) * cross(row[0], row[1]);
        }
    }

    // The difference brought near the origin by lattice vectors.
    Vec wrapped(Vec gap) const {
        Vec out = gap;
        for (int i = 0; i < d; i++) out = out - std::nearbyint(dot(gap, dual[i])) * row[i];
        return out;
    }

    // Length, area or volume of the cell.
    double measure() const {
        if (d == 0) return 0.0;
        if (d == 1) return std::sqrt(dot(row[0], row[0]));
        const Vec plane = cross(row[0], row[1]);
        return d == 2 ? std::sqrt(dot(plane, plane)) : std::fabs(dot(plane, row[2]));
    }
};

struct Point {
    Vec at;
    double length;
};

// Every lattice vector up to a length, from short to long; false where there would be more than `most`.
bool lattice_points(const Lattice &lattice, double radius, std::size_t most, std::vector<Point> &points) {
    points.clear();
    i64 limit[3] = {0, 0, 0};
    double cells = 1.0;
    for (int i = 0; i < lattice.d; i++) {
        // the planes are 1 / |dual| apart
        limit[i] = static_cast<i64>(std::floor(radius * std::sqrt(dot(lattice.dual[i], lattice.dual[i])) + 1e-9));
        cells *= 2.0 * static_cast<double>(limit[i]) + 1.0;
    }
    if (cells > 20.0 * static_cast<double>(most)) return false;
    const double square = radius * radius * (1.0 + 1e-9);
    for (i64 a = -limit[0]; a <= limit[0]; a++)
        for (i64 b = -limit[1]; b <= limit[1]; b++)
            for (i64 c = -limit[2]; c <= limit[2]; c++) {
                Vec v = {0.0, 0.0, 0.0};
                const double n[3] = {double(a), double(b), double(c)};
                for (int i = 0; i < lattice.d; i++) v = v + n[i] * lattice.row[i];
                if (dot(v, v) > square) continue;
                if (points.size() == most) return false;
                points.push_back({v, std::sqrt(dot(v, v))});
            }
    std::stable_sort(points.begin(), points.end(), [](const Point &a, const Point &b) { return a.length < b.length; });
    return true;
}

// Sites of a structure in bins of its cell, so that few are looked at to find the one at a given place.
class Bins {
   public:
    Bins(i64 n, const double *sites, const Lattice &lattice, double reach) : lattice_(lattice) {
        if (n < 24) return;  // looking at all is as fast
        const double edge = std::max(1.5, 1.01 * reach);
        i64 total = 1;
        for (int i = 0; i < lattice.d; i++) {
            const double height = 1.0 / std::sqrt(dot(lattice.dual[i], lattice.dual[i]));
            count_[i] = std::clamp(static_cast<i64>(height / edge), i64(1), i64(32));
            width_[i] = reach / height * double(count_[i]);
            total *= count_[i];
        }
        if (total < 8) return;
        start_.assign(total + 1, 0);
        std::vector<i64> bin(n);
        for (i64 i = 0; i < n; i++) {
            double place[3];
            coordinates(at(sites, i), place);
            i64 box[3] = {0, 0, 0};
            for (int a = 0; a < lattice.d; a++) box[a] = wrapped(static_cast<i64>(place[a]), a);
            bin[i] = (box[0] * count_[1] + box[1]) * count_[2] + box[2];
            start_[bin[i] + 1]++;
        }
        for (i64 b = 0; b < total; b++) start_[b + 1] += start_[b];
        members_.resize(n);
        std::vector<i64> next(start_.begin(), start_.end() - 1);
        for (i64 i = 0; i < n; i++) members_[next[bin[i]]++] = i;
    }

    bool sorted() const { return !start_.empty(); }

    // Calls visit(site) for every site that may lie within the reach of a place, and for some others.
    template <class Visit>
    void near(Vec place, const Visit &visit) const {
        double where[3];
        i64 low[3] = {0, 0, 0}, high[3] = {0, 0, 0};
        coordinates(place, where);
        for (int a = 0; a < lattice_.d; a++) {
            low[a] = static_cast<i64>(std::floor(where[a] - width_[a] - 1e-9));
            high[a] = static_cast<i64>(std::floor(where[a] + width_[a] + 1e-9));
            if (high[a] - low[a] >= count_[a]) low[a] = 0, high[a] = count_[a] - 1;
        }
        for (i64 i = low[0]; i <= high[0]; i++)
            for (i64 j = low[1]; j <= high[1]; j++)
                for (i64 k = low[2]; k <= high[2]; k++) {
                    const i64 b = (wrapped(i, 0) * count_[1] + wrapped(j, 1)) * count_[2] + wrapped(k, 2);
                    for (i64 m = start_[b]; m < start_[b + 1]; m++) visit(members_[m]);
                }
    }

   private:
    const Lattice &lattice_;
    i64 count_[3] = {1, 1, 1};
    double width_[3] = {0.0, 0.0, 0.0};  // the reach, in bins
    std::vector<i64> start_, members_;

    void coordinates(Vec place, double *out) const {
        for (int a = 0; a < lattice_.d; a++) {
            const double f = dot(place, lattice_.dual[a]);
            out[a] = (f - std::floor(f)) * double(count_[a]);
        }
    }
    i64 wrapped(i64 i, int a) const { return i < 0 ? i + count_[a] : i >= count_[a] ? i - count_[a] : i; }
};

// The k smallest squares seen so far, ascending.
inline void keep(double *list, i64 k, double square) {
    if (square >= list[k - 1]) return;
    i64 i = k - 1;
    for (; i > 0 && list[i - 1] > square; i--) list[i] = list[i - 1];
    list[i] = square;
}

}  // namespace

extern "C" {

// Minkowski reduction in place: rows (d, 3), transform (d, d) with reduced = transform @ rows. 0 if it does not end.
int reduced_lattice(double *rows, i64 *transform, int d, int most_steps) {
    Vec first[3], now[3];
    i64 h[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
    for (int i = 0; i < d; i++) first[i] = now[i] = at(rows, i);
    bool changed = true;
    for (int step = 0; changed && step < most_steps; step++) {
        for (int i = 1; i < d; i++)
            for (int j = i; j > 0 && dot(now[j], now[j]) < dot(now[j - 1], now[j - 1]); j--) {
                std::swap(now[j], now[j - 1]);
                std::swap(h[j], h[j - 1]);
            }
        changed = false;
        for (int k = 1; k < d && !changed; k++) {
            i64 near[2] = {0, 0};
            const double aa = dot(now[0], now[0]), av = dot(now[0], now[k]);
            if (k == 1) {
                near[0] = std::llrint(av / aa);
            } else {
                const double ab = dot(now[0], now[1]), bb = dot(now[1], now[1]), bv = dot(now[1], now[k]);
                const double det = aa * bb - ab * ab;
                const double p = std::floor((bb * av - ab * bv) / det), q = std::floor((aa * bv - ab * av) / det);
                double best = INFINITE;
                for (int corner = 0; corner < 4; corner++) {
                    const double m = p + corner / 2, n = q + corner % 2;
                    const Vec rest = now[k] - m * now[0] - n * now[1];
                    if (dot(rest, rest) < best) {
                        best = dot(rest, rest);
                        near[0] = static_cast<i64>(m), near[1] = static_cast<i64>(n);
                    }
                }
            }
            Vec shorter = now[k];
            for (int j = 0; j < k; j++) shorter = shorter - double(near[j]) * now[j];
            if (dot(shorter, shorter) < dot(now[k], now[k]) * (1.0 - 1e-10)) {
                for (int c = 0; c < d; c++)
                    for (int j = 0; j < k; j++) h[k][c] -= near[j] * h[j][c];
                // from the first rows, so that rounding does not pile up
                now[k] = {0.0, 0.0, 0.0};
                for (int c = 0; c < d; c++) now[k] = now[k] + double(h[k][c]) * first[c];
                changed = true;
            }
        }
    }
    for (int i = 0; i < d; i++) {
        put(rows, i, now[i]);
        for (int c = 0; c < d; c++) transform[i * d + c] = h[i][c];
    }
    return changed ? 0 : 1;
}

// Sites of one structure by kind: species in ascending order of their atomic numbers, numbered from 0.
struct Kinds {
    std::vector<i64> of, count;

    Kinds(i64 n, const i64 *numbers) : of(n) {
        i64 index[256];
        std::fill(index, index + 256, -1);
        for (i64 i = 0; i < n; i++) index[numbers[i] & 255] = 0;
        i64 s = 0;
        for (i64 &slot : index)
            if (slot == 0) slot = s++;
        count.assign(s, 0);
        for (i64 i = 0; i < n; i++) count[of[i] = index[numbers[i] & 255]]++;
    }

    i64 size() const { return static_cast<i64>(count.size()); }
};

static int rows_of(i64 n, const double *positions, const Kinds &kinds, i64 k, const Lattice &lattice, double *out) {
    const i64 s = kinds.size(), c = s * k;
    const int d = lattice.d;
    const double per_atom = lattice.measure() / double(*std::min_element(kinds.count.begin(), kinds.count.end()));
    const double pi = 3.14159265358979323846;
    double half = 0.0;  // what a wrapped difference within the span of the lattice may measure
    for (int i = 0; i < d; i++) half += 0.5 * std::sqrt(dot(lattice.row[i], lattice.row[i]));
    double reach = d == 3   ? std::cbrt(3.0 * double(k + 1) * per_atom / (4.0 * pi))
                   : d == 2 ? std::sqrt(double(k + 1) * per_atom / pi)
                            : 0.5 * double(k + 1) * per_atom;
    std::vector<Point> points;
    std::vector<double> missing(n * s);
    for (int attempt = 0; attempt < 60; attempt++, reach *= 1.4) {
        const double radius = d ? reach + half : 0.0;
        if (!lattice_points(lattice, radius, 2000000, points)) return 0;
        std::fill(out, out + n * c, INFINITE);
        std::fill(missing.begin(), missing.end(), INFINITE);
        for (i64 i = 0; i < n; i++)
            for (i64 j = i; j < n; j++) {
                double *mine = out + i * c + kinds.of[j] * k, *theirs = out + j * c + kinds.of[i] * k;
                const Vec gap = lattice.wrapped(at(positions, j) - at(positions, i));
                Vec along = {0.0, 0.0, 0.0};
                for (int a = 0; a < d; a++) along = along + dot(gap, lattice.dual[a]) * lattice.row[a];
                const Vec across = gap - along;
                const double inside = std::sqrt(dot(along, along)), outside = dot(across, across);
                bool ended = d == 0;
                for (const Point &point : points) {
                    const double least = point.length - inside, worst = std::max(mine[k - 1], theirs[k - 1]);
                    if (least > 0.0 && least * least + outside > worst) {
                        ended = true;
                        break;
                    }
                    const Vec v = gap + point.at;
                    const double square = dot(v, v);
                    if (square >= worst || (i == j && point.length == 0.0)) continue;
                    keep(mine, k, square);
                    if (i != j) keep(theirs, k, square);
                }
                if (!ended) {  // the points ran out: how near those may be that are missing
                    const double least = std::max(0.0, radius - inside), near = least * least + outside;
                    missing[i * s + kinds.of[j]] = std::min(missing[i * s + kinds.of[j]], near);
                    missing[j * s + kinds.of[i]] = std::min(missing[j * s + kinds.of[i]], near);
                }
            }
        bool complete = true;
        for (i64 q = 0; d && q < n * s; q++) complete &= missing[q] >= out[q * k + k - 1];
        if (!complete) continue;
        // a molecule may have fewer neighbours
        for (i64 q = 0; q < n * c; q++) out[q] = out[q] == INFINITE ? 0.0 : std::sqrt(out[q]);
        return 1;
    }
    return 0;
}

// Mean and spread of columns (n, c) over the sites of each kind, (s, c) each.
static void statistics(i64 n, i64 c, const double *rows, const Kinds &kinds, float *means, float *spreads) {
    const i64 s = kinds.size();
    std::vector<double> mean(s * c, 0.0), square(s * c, 0.0);
    for (i64 i = 0; i < n; i++)
        for (i64 q = 0; q < c; q++) mean[kinds.of[i] * c + q] += rows[i * c + q];
    for (i64 q = 0; q < s * c; q++) mean[q] /= double(kinds.count[q / c]);
    for (i64 i = 0; i < n; i++)
        for (i64 q = 0; q < c; q++) {
            const double away = rows[i * c + q] - mean[kinds.of[i] * c + q];
            square[kinds.of[i] * c + q] += away * away;
        }
    for (i64 q = 0; q < s * c; q++) {
        means[q] = float(mean[q]);
        spreads[q] = float(std::sqrt(square[q] / double(kinds.count[q / c])));
    }
}

// Lattice rows (d, 3), reduced in place, and the rows of neighbour distances (n, s, k); see site_rows. 0 where neighbours
// are too far to be listed.
int reduced_and_rows(i64 n, const double *positions, const i64 *numbers, i64 k, double *lattice, int d, double *out) {
    i64 transform[9];
    reduced_lattice(lattice, transform, d, 1000);
    return rows_of(n, positions, Kinds(n, numbers), k, Lattice(lattice, d), out);
}

// Fingerprint of one structure, see Fingerprint: leading (4,) and vector (2 s s k + 2 s,). The lattice (d, 3) need not be
// reduced; moments (n,) are absolute values or null. 0 where neighbours are too far to be listed.
int fingerprint(i64 n, const double *positions, const i64 *numbers, i64 k, const double *lattice, int d,
                const double *moments, double *leading, float *vector) {
    double reduced[9];
    i64 transform[9];
    std::copy(lattice, lattice + 3 * d, reduced);
    reduced_lattice(reduced, transform, d, 1000);
    const Kinds kinds(n, numbers);
    const Lattice box(reduced, d);
    const i64 s = kinds.size(), c = s * k;
    std::vector<double> rows(n * c);
    if (!rows_of(n, positions, kinds, k, box, rows.data())) return 0;
    statistics(n, c, rows.data(), kinds, vector, vector + s * c);
    std::fill(vector + 2 * s * c, vector + 2 * s * c + 2 * s, 0.0f);
    if (moments) statistics(n, 1, moments, kinds, vector + 2 * s * c, vector + 2 * s * c + s);
    std::vector<double> means(n, 0.0);
    double mean = 0.0, nearest = 0.0, square = 0.0;
    for (i64 i = 0; i < n; i++) {
        for (i64 q = 0; q < c; q++) means[i] += rows[i * c + q];
        means[i] /= double(c);
        mean += means[i] / double(n);
        nearest += *std::min_element(&rows[i * c], &rows[i * c] + c) / double(n);
    }
    for (i64 i = 0; i < n; i++) square += (means[i] - mean) * (means[i] - mean);
    leading[0] = d ? std::pow(box.measure() / double(n), 1.0 / double(d)) : 0.0;
    leading[1] = mean, leading[2] = nearest, leading[3] = std::sqrt(square / double(n));
    return 1;
}

// Which of n_x sites may correspond to which of n_y, (n_x, n_y): the same number, rows within 2 shift + strain, absolute
// moments within a tolerance (negative: not compared). 1 if every site of both has a partner.
int compatible_sites(i64 n_x, i64 n_y, i64 c, const i64 *numbers_x, const i64 *numbers_y, const double *rows_x,
                     const double *rows_y, const double *moments_x, const double *moments_y, double unit, double shift,
                     double strain, double moment, std::uint8_t *pairs) {
    std::vector<char> met(n_y, 0);
    bool all = true;
    for (i64 i = 0; i < n_x; i++) {
        bool any = false;
        const double *mine = rows_x + i * c;
        for (i64 j = 0; j < n_y; j++) {
            const double *theirs = rows_y + j * c;
            bool good = numbers_x[i] == numbers_y[j];
            if (good && moment >= 0.0) good = std::fabs(moments_x[i] - moments_y[j]) <= moment;
            for (i64 q = 0; q < c && good; q++) {
                const double own = mine[q] * unit;
                good = std::fabs(own - theirs[q] / unit) <= shift + strain * own;
            }
            pairs[i * n_y + j] = good;
            any |= good;
            met[j] |= good;
        }
        all &= any;
    }
    return all && std::all_of(met.begin(), met.end(), [](char m) { return m != 0; });
}

// Which of m stored fingerprints may be those of duplicates of one: four leading coordinates, each a column and `stride`
// behind the one before, between low and high, and vectors (m, width) within `allowed` of it; see possible_duplicates.
// Their number; rows are written ascending.
i64 search(i64 m, i64 stride, i64 width, const double *leading, const float *vectors, const double *low,
           const double *high, const double *one, const double *allowed, i64 *rows) {
    constexpr i64 block = 64;
    i64 found = 0;
    for (i64 first = 0; first < m; first += block) {
        const i64 size = std::min(block, m - first);
        // a column at a time, most selective first, as long as anything is left of the block
        std::uint8_t good[block];
        std::fill(good, good + size, 1);
        int left = 1;
        for (int column : {1, 2, 3, 0}) {
            const double *place = leading + column * stride + first;
            left = 0;
            for (i64 r = 0; r < size; r++) {
                good[r] &= (place[r] >= low[column]) & (place[r] <= high[column]);
                left |= good[r];
            }
            if (!left) break;
        }
        for (i64 r = 0; left && r < size; r++) {
            if (!good[r]) continue;
            const float *vector = vectors + (first + r) * width;
            bool within = true;
            for (i64 start = 0; start < width && within; start += 16) {
                const i64 stop = std::min(width, start + 16);
                for (i64 q = start; q < stop; q++) within &= std::fabs(double(vector[q]) - one[q]) <= allowed[q];
            }
            if (within) rows[found++] = first + r;
        }
    }
    return found;
}

// Largest absolute principal logarithmic strain of the map that carries the rows of one lattice onto others.
static double largest_strain(const Lattice &source, const Vec *images) {
    const int d = source.d;
    // Gram matrices in an orthonormal basis of the source: E = L^-1 G' L^-T - 1, with G = L L^T
    double g[3][3], w[3][3], l[3][3] = {}, e[3][3] = {};
    for (int i = 0; i < d; i++)
        for (int j = 0; j < d; j++) g[i][j] = dot(source.row[i], source.row[j]), w[i][j] = dot(images[i], images[j]) - g[i][j];
    for (int i = 0; i < d; i++)
        for (int j = 0; j <= i; j++) {
            double sum = g[i][j];
            for (int m = 0; m < j; m++) sum -= l[i][m] * l[j][m];
            l[i][j] = i == j ? std::sqrt(sum) : sum / l[j][j];
        }
    const auto forward = [&](double (&m)[3][3]) {  // L^-1 m, column by column
        for (int col = 0; col < d; col++)
            for (int i = 0; i < d; i++) {
                for (int q = 0; q < i; q++) m[i][col] -= l[i][q] * m[q][col];
                m[i][col] /= l[i][i];
            }
    };
    forward(w);
    for (int i = 0; i < d; i++)
        for (int j = 0; j < d; j++) e[i][j] = w[j][i];
    forward(e);
    // eigenvalues by Jacobi rotations: exact for small strains, where closed forms lose half the digits
    for (int sweep = 0; sweep < 12; sweep++) {
        double off = 0.0, on = 0.0;
        for (int i = 0; i < d; i++)
            for (int j = 0; j < d; j++) (i == j ? on : off) += e[i][j] * e[i][j];
        if (off <= 1e-30 * on || off == 0.0) break;
        for (int p = 0; p < d; p++)
            for (int q = p + 1; q < d; q++) {
                if (e[p][q] == 0.0) continue;
                const double theta = (e[q][q] - e[p][p]) / (2.0 * e[p][q]);
                const double t = (theta >= 0.0 ? 1.0 : -1.0) / (std::fabs(theta) + std::sqrt(theta * theta + 1.0));
                const double cosine = 1.0 / std::sqrt(t * t + 1.0), sine = t * cosine;
                for (int m = 0; m < d; m++) {
                    const double a = e[m][p], b = e[m][q];
                    e[m][p] = cosine * a - sine * b, e[m][q] = sine * a + cosine * b;
                }
                for (int m = 0; m < d; m++) {
                    const double a = e[p][m], b = e[q][m];
                    e[p][m] = cosine * a - sine * b, e[q][m] = sine * a + cosine * b;
                }
            }
    }
    double largest = 0.0;
    for (int i = 0; i < d; i++) {
        if (!(e[i][i] > -1.0)) return INFINITE;
        largest = std::max(largest, std::fabs(0.5 * std::log1p(e[i][i])));
    }
    return largest;
}

// Images (m, d, 3) of the source's rows under every map between two lattices within a strain; see lattice_maps. The
// number of maps, -1 where `room` is too small for them, -2 where the target's vectors are too many.
i64 lattice_maps(const double *source, const double *target, int d, double strain, i64 room, double *out) {
    const Lattice a(source, d), b(target, d);
    const double slack = std::exp(strain) * (1.0 + 1e-9);
    double length[3], longest = 0.0;
    for (int i = 0; i < d; i++) {
        length[i] = std::sqrt(dot(a.row[i], a.row[i]));
        longest = std::max(longest, length[i]);
    }
    std::vector<Point> points;
    if (!lattice_points(b, longest * slack, 2000000, points)) return -2;
    std::vector<Vec> shell[3];
    for (const Point &point : points)
        for (int i = 0; i < d; i++)
            if (point.length >= length[i] / slack && point.length <= length[i] * slack) shell[i].push_back(point.at);
    double low[3][3][2], high[3][3][2];
    for (int i = 0; i < d; i++)
        for (int j = 0; j < i; j++)
            for (int sign = 0; sign < 2; sign++) {
                const Vec sum = sign ? a.row[i] - a.row[j] : a.row[i] + a.row[j];
                const double square = dot(sum, sum);
                low[i][j][sign] = square / (slack * slack), high[i][j][sign] = square * slack * slack;
            }
    const auto fits = [&](int i, int j, Vec mine, Vec other) {
        const Vec plus = mine + other, minus = mine - other;
        const double p = dot(plus, plus), m = dot(minus, minus);
        return p >= low[i][j][0] && p <= high[i][j][0] && m >= low[i][j][1] && m <= high[i][j][1];
    };
    i64 found = 0;
    const auto store = [&](const Vec *rows) {
        if (largest_strain(a, rows) > strain + 1e-9) return;
        if (found < room)
            for (int i = 0; i < d; i++) put(out, found * d + i, rows[i]);
        found++;
    };
    for (const Vec &p : shell[0]) {
        Vec rows[3] = {p, {}, {}};
        if (d == 1) {
            store(rows);
            continue;
        }
        for (const Vec &q : shell[1]) {
            if (!fits(1, 0, q, p)) continue;
            rows[1] = q;
            if (d == 2) {
                store(rows);
                continue;
            }
            for (const Vec &r : shell[2])
                if (fits(2, 0, r, p) && fits(2, 1, r, q)) {
                    rows[2] = r;
                    store(rows);
                }
        }
    }
    return found <= room ? found : -1;
}

// What the placements of one pair share; see Trial.
struct Trial {
    i64 n_x, n_y, copies;
    int d, turned;
    const double *x, *y, *lattice, *maps;
    const i64 *order;           // (n_x,)
    const i64 *partner_start;   // (n_x + 1,), into partners, in the order of `order`
    const i64 *partners;
    const std::uint8_t *pairs;  // (n_x, n_y), the same as a table
    double gate;                // Å
};

// The first of the starts from `first` to `last` that is a one-to-one placement within the gate and with a scatter of at
// most `scatter` (Å², the sum over sites); `last` if none is. Its sites (n_x,) and residue (n_x, 3) are written.
i64 next_placement(const Trial *trial, const i64 *linears, const double *shifts, i64 first, i64 last, double scatter,
                   i64 *sites, double *residue) {
    const Lattice lattice(trial->lattice, trial->d);
    const Bins bins(trial->n_y, trial->y, lattice, trial->gate);
    const double gate = trial->gate * trial->gate;
    std::vector<i64> used(trial->n_y);
    for (i64 start = first; start < last; start++) {
        const double *map = trial->maps + 9 * linears[start];
        const Vec shift = at(shifts, start);
        Vec total = {0.0, 0.0, 0.0};
        double square = 0.0;
        bool alive = true;
        for (i64 o = 0; o < trial->n_x && alive; o++) {
            const i64 i = trial->order[o];
            const Vec carried = times(at(trial->x, i), map) + shift;
            double least = INFINITE;
            Vec nearest = {0.0, 0.0, 0.0};
            const auto look = [&](i64 j) {
                const Vec gap = lattice.wrapped(carried - at(trial->y, j));
                const double size = dot(gap, gap);
                if (size < least) least = size, nearest = gap, sites[i] = j;
            };
            const i64 begin = trial->partner_start[o], end = trial->partner_start[o + 1];
            if (bins.sorted() && end - begin > 4) {
                const std::uint8_t *allowed = trial->pairs + i * trial->n_y;
                bins.near(carried, [&](i64 j) {
                    if (allowed[j]) look(j);
                });
            } else {
                for (i64 p = begin; p < end; p++) look(trial->partners[p]);
            }
            put(residue, i, nearest);
            total = total + nearest;
            square += least;
            // the scatter about the mean of some displacements never exceeds that of all of them about theirs
            alive = least <= gate &&
                    (trial->turned || square - dot(total, total) / double(o + 1) <= scatter * (1.0 + 1e-9) + 1e-12);
        }
        if (!alive) continue;
        std::fill(used.begin(), used.end(), 0);
        for (i64 i = 0; i < trial->n_x; i++) used[sites[i]]++;
        if (std::all_of(used.begin(), used.end(), [&](i64 uses) { return uses == trial->copies; })) return start;
    }
    return last;
}

// One partner of a comparison; see Motif. What is of both kinds follows the plain Python.
struct Partner {
    i64 n, c;                // sites, columns of their rows
    int d, moment_kind;      // periodic directions; 0 no moments, 1 collinear, 2 vectors
    double deviation;
    const double *lattice, *positions, *rows, *lengths, *moments;
    const i64 *numbers;
};

// Tolerances; see DuplicatePolicy. A negative moment: not compared.
struct Policy {
    double displacement, rms, strain, moment;
    int mirror, every;       // every: the best of all placements counts, else the best of the first that are found
};

// The rotation nearest to a nearly orthogonal matrix, by Newton's iteration for the polar factor (Higham 1986).
static void nearest_rotation(const double *linear, double *turn) {
    std::copy(linear, linear + 9, turn);
    for (int step = 0; step < 12; step++) {
        const Vec a = at(turn, 0), b = at(turn, 1), c = at(turn, 2);
        const double det = dot(a, cross(b, c));
        put(turn, 0, 0.5 * (a + (1.0 / det) * cross(b, c)));
        put(turn, 1, 0.5 * (b + (1.0 / det) * cross(c, a)));
        put(turn, 2, 0.5 * (c + (1.0 / det) * cross(a, b)));
    }
}

// +1 or -1 where moments agree as they are or all flipped (collinear only), 0 where they do not.
static int moment_sign(const Partner &x, const Partner &y, const Policy &policy, const double *linear, const i64 *sites) {
    if (!x.moment_kind || !y.moment_kind || policy.moment < 0.0) return 1;
    if (x.moment_kind == 2) {
        double turn[9];
        nearest_rotation(linear, turn);
        const double handed = dot(at(turn, 0), cross(at(turn, 1), at(turn, 2))) > 0.0 ? 1.0 : -1.0;
        for (i64 i = 0; i < x.n; i++) {
            const Vec away = handed * times(at(x.moments, i), turn) - at(y.moments, sites[i]);
            if (std::sqrt(dot(away, away)) > policy.moment) return 0;
        }
        return 1;
    }
    for (int sign : {1, -1}) {
        bool good = true;
        for (i64 i = 0; i < x.n && good; i++)
            good = std::fabs(sign * x.moments[i] - y.moments[sites[i]]) <= policy.moment;
        if (good) return sign;
    }
    return 0;
}

// Which of m partners pass the test of their sites' surroundings with one, as `place` would make it, or a little less
// strictly; those of which neither holds a whole number of cells of the other pass.
void gate(const Partner *one, i64 m, const Partner *const *others, const Policy *policy, std::uint8_t *keep) {
    const double slope = 1.0 + 2.0 * policy->strain, strain = policy->strain * std::exp(4.0 * policy->strain);
    std::vector<char> met;
    for (i64 o = 0; o < m; o++) {
        const Partner &x = one->n >= others[o]->n ? *one : *others[o], &y = one->n >= others[o]->n ? *others[o] : *one;
        keep[o] = 1;
        if (x.n % y.n) continue;
        const double shift = 2.0 * (policy->displacement + x.deviation + y.deviation) * slope + 1e-9;
        met.assign(y.n, 0);
        for (i64 i = 0; i < x.n && keep[o]; i++) {
            const double *mine = x.rows + i * x.c;
            bool any = false;
            for (i64 j = 0; j < y.n; j++) {
                if (any && met[j]) continue;
                const double *theirs = y.rows + j * y.c;
                bool good = x.numbers[i] == y.numbers[j];
                for (i64 q = 0; q < x.c && good; q++)
                    good = std::fabs(mine[q] - theirs[q]) <= shift + strain * (mine[q] + 1e-6);
                any |= good;
                met[j] |= good;
            }
            keep[o] = any;
        }
        if (keep[o]) keep[o] = std::all_of(met.begin(), met.end(), [](char v) { return v != 0; });
    }
}

// Best placement of a source on a target of which it holds `copies` cells, for two or three periodic directions; see
// _place. Given maps (n_maps, 3, 3) are tried, else those between the lattices. Returns 1 where one is within the policy,
// 0 where none is, -1 where there is no map, -2 where the lattice has too many vectors. The result is written to linear
// (3, 3), shift (3,), sites (n,) and told = (largest, rms, sign).
int place(const Partner *source, const Partner *target, const Policy *policy, double unit, i64 n_maps,
          const double *given, double *linear, double *shift, i64 *sites, double *told) {
    const Partner &x = *source, &y = *target;
    const i64 copies = x.n / y.n;
    const int d = x.d;
    const double charged = x.deviation + y.deviation, slope = 1.0 + 2.0 * policy->strain;
    std::vector<std::uint8_t> pairs(x.n * y.n);
    if (!compatible_sites(x.n, y.n, x.c, x.numbers, y.numbers, x.rows, y.rows, x.lengths, y.lengths, unit,
                          2.0 * (policy->displacement + charged) * slope + 1e-9,
                          policy->strain * std::exp(2.0 * policy->strain),
                          policy->moment < 0.0 ? -1.0 : policy->moment * (1.0 + 1e-6), pairs.data()))
        return 0;

    std::vector<double> xs(x.positions, x.positions + 3 * x.n), ys(y.positions, y.positions + 3 * y.n);
    std::vector<double> rows_x(x.lattice, x.lattice + 3 * d), rows_y(y.lattice, y.lattice + 3 * d);
    for (double &v : xs) v *= unit;
    for (double &v : ys) v /= unit;
    for (double &v : rows_x) v *= unit;
    for (double &v : rows_y) v /= unit;

    std::vector<double> maps;
    if (given) {
        maps.assign(given, given + 9 * n_maps);
    } else {
        i64 room = 64, found;
        std::vector<double> images;
        do {
            room *= 8;
            images.resize(3 * d * room);
            found = lattice_maps(rows_x.data(), rows_y.data(), d, policy->strain, room, images.data());
            if (found == -2) return -2;
        } while (found < 0);
        const Lattice a(rows_x.data(), d);
        std::vector<double> mirrored;
        for (i64 m = 0; m < found; m++)
            for (double over : {1.0, -1.0}) {
                if (d == 3 && over < 0.0) continue;
                double map[9] = {};
                const auto add = [&](Vec from, Vec to) {
                    const double f[3] = {from.x, from.y, from.z};
                    for (int r = 0; r < 3; r++) put(map, r, at(map, r) + f[r] * to);
                };
                for (int i = 0; i < d; i++) add(a.dual[i], at(images.data(), m * d + i));
                if (d == 2) {  // the normal may turn over
                    Vec n = cross(a.row[0], a.row[1]), t = cross(at(rows_y.data(), 0), at(rows_y.data(), 1));
                    n = (1.0 / std::sqrt(dot(n, n))) * n;
                    t = (over / std::sqrt(dot(t, t))) * t;
                    add(n, t);
                }
                const bool proper = dot(at(map, 0), cross(at(map, 1), at(map, 2))) > 0.0;
                if (proper) maps.insert(maps.end(), map, map + 9);
                if (!proper && policy->mirror) mirrored.insert(mirrored.end(), map, map + 9);
            }
        maps.insert(maps.end(), mirrored.begin(), mirrored.end());
        n_maps = static_cast<i64>(maps.size()) / 9;
    }
    if (!n_maps) return -1;

    if (copies > 1) {
        // atoms this close could stand for each other, and counting would no longer prove a one-to-one correspondence
        const double nearest = std::min(*std::min_element(x.rows, x.rows + x.n * x.c),
                                        *std::min_element(y.rows, y.rows + y.n * y.c));
        if (nearest <= 4.0 * policy->displacement) return 0;
    }
    // sites with the fewest partners first, the first of them is the anchor
    std::vector<i64> order(x.n), uses(x.n, 0), begin(x.n + 1, 0), partners;
    for (i64 i = 0; i < x.n; i++) {
        order[i] = i;
        for (i64 j = 0; j < y.n; j++) uses[i] += pairs[i * y.n + j];
    }
    std::stable_sort(order.begin(), order.end(), [&](i64 p, i64 q) { return uses[p] < uses[q]; });
    for (i64 o = 0; o < x.n; o++) {
        for (i64 j = 0; j < y.n; j++)
            if (pairs[order[o] * y.n + j]) partners.push_back(j);
        begin[o + 1] = static_cast<i64>(partners.size());
    }
    const i64 lead = order[0];
    std::vector<double> alike(y.n, 0.0);
    std::vector<i64> anchors(partners.begin(), partners.begin() + begin[1]);
    for (i64 j : anchors)
        for (i64 q = 0; q < x.c; q++) alike[j] += std::fabs(x.rows[lead * x.c + q] - y.rows[j * y.c + q]);
    std::stable_sort(anchors.begin(), anchors.end(), [&](i64 p, i64 q) { return alike[p] < alike[q]; });
    const i64 starts = static_cast<i64>(anchors.size()) * n_maps;
    std::vector<i64> linears(starts);
    std::vector<double> shifts(3 * starts);
    for (i64 s = 0; s < starts; s++) {
        linears[s] = s % n_maps;
        put(shifts.data(), s, at(ys.data(), anchors[s / n_maps]) - times(at(xs.data(), lead), &maps[9 * linears[s]]));
    }

    const Trial trial = {x.n, y.n, copies, d, 0, xs.data(), ys.data(), rows_y.data(), maps.data(), order.data(),
                         begin.data(), partners.data(), pairs.data(), 2.0 * policy->displacement * slope + 1e-9};
    std::vector<i64> onto(x.n);
    std::vector<double> residue(3 * x.n);
    const i64 block = policy->every ? starts : std::min<i64>(256, std::max<i64>(n_maps, 16));
    double best = INFINITE;
    for (i64 first = 0; first < starts; first += block) {
        const i64 last = std::min(starts, first + block);
        for (i64 s = first; s < last; s++) {
            const double limit = std::min(policy->rms, best);
            s = next_placement(&trial, linears.data(), shifts.data(), s, last, double(x.n) * limit * limit, onto.data(),
                               residue.data());
            if (s == last) break;
            Vec mean = {0.0, 0.0, 0.0};
            for (i64 i = 0; i < x.n; i++) mean = mean + at(residue.data(), i);
            mean = (1.0 / double(x.n)) * mean;
            double largest = 0.0, sum = 0.0;
            for (i64 i = 0; i < x.n; i++) {
                const Vec left = at(residue.data(), i) - mean;
                largest = std::max(largest, dot(left, left));
                sum += dot(left, left);
            }
            largest = std::sqrt(largest);
            const double rms = std::sqrt(sum / double(x.n));
            if (largest + charged > policy->displacement || rms + charged > policy->rms || rms > best - 1e-9) continue;
            const int sign = moment_sign(x, y, *policy, &maps[9 * linears[s]], onto.data());
            if (!sign) continue;
            best = rms;
            std::copy(&maps[9 * linears[s]], &maps[9 * linears[s]] + 9, linear);
            put(shift, 0, at(shifts.data(), s) - mean);
            std::copy(onto.begin(), onto.end(), sites);
            told[0] = largest, told[1] = rms, told[2] = sign;
            if (best <= 1e-3 * policy->rms) return 1;
        }
        if (best < INFINITE && !policy->every) break;
    }
    return best < INFINITE;
}

// Translations that carry every site onto one of its kind within 2 tolerance, see _translations: coordinates (t, d) along
// the lattice in units of 1 / common, and the sites (t, n) onto which they carry. Their number. Coordinates and sites need
// room for as many as the rarest species has sites.
i64 translations(const Partner *whole, i64 common, double tolerance, double moment, i64 *coordinates, i64 *onto) {
    const Partner &x = *whole;
    const Lattice lattice(x.lattice, x.d);
    const double limit = 2.0 * tolerance + 1e-9;
    i64 count[256] = {};
    for (i64 i = 0; i < x.n; i++) count[x.numbers[i] & 255]++;
    i64 rarest = -1;
    for (i64 z = 0; z < 256; z++)
        if (count[z] && (rarest < 0 || count[z] < count[rarest])) rarest = z;
    const i64 first = std::find(x.numbers, x.numbers + x.n, rarest) - x.numbers;
    const Bins bins(x.n, x.positions, lattice, limit);
    i64 found = 0;
    for (i64 other = first; other < x.n; other++) {
        if (x.numbers[other] != rarest) continue;
        bool good = true;
        for (i64 q = 0; q < x.c && good; q++)
            good = std::fabs(x.rows[other * x.c + q] - x.rows[first * x.c + q]) <= 2.0 * limit;
        if (!good) continue;
        // the order of a translation divides every species' count, so its coordinates are multiples of 1 / common
        const Vec step = at(x.positions, other) - at(x.positions, first);
        Vec snapped = {0.0, 0.0, 0.0};
        for (int a = 0; a < x.d; a++) {
            const i64 n = std::llrint(dot(step, lattice.dual[a]) * double(common));
            snapped = snapped + (double(n) / double(common)) * lattice.row[a];
            coordinates[found * x.d + a] = ((n % common) + common) % common;
        }
        const Vec miss = lattice.wrapped(step - snapped);
        if (dot(miss, miss) > limit * limit) continue;
        for (i64 i = 0; i < x.n && good; i++) {
            const Vec place = at(x.positions, i) + snapped;
            double least = limit * limit;
            i64 under = -1;
            const auto look = [&](i64 j) {
                if (x.numbers[i] != x.numbers[j]) return;
                const Vec gap = lattice.wrapped(place - at(x.positions, j));
                if (dot(gap, gap) <= least) least = dot(gap, gap), under = j;
            };
            if (bins.sorted()) {
                bins.near(place, look);
            } else {
                for (i64 j = 0; j < x.n; j++) look(j);
            }
            onto[found * x.n + i] = under;
            good = under >= 0;
            for (int a = 0; a < (x.moment_kind == 2 ? 3 : x.moment_kind) && good; a++) {
                const int per = x.moment_kind == 2 ? 3 : 1;
                good = std::fabs(x.moments[under * per + a] - x.moments[i * per + a]) <= moment;
            }
        }
        if (good) found++;
    }
    return found;
}

// Under each of m points the nearest of n sites of the same number, (m,); returns the longest way to one, Å, measured after
// the ways are multiplied by a matrix (3, 3). Infinite where a number is missing.
double nearest_same(i64 m, const double *points, const i64 *numbers, i64 n, const double *sites,
                    const i64 *site_numbers, const double *rows, int d, const double *matrix, i64 *nearest) {
    const Lattice lattice(rows, d);
    double longest = 0.0;
    for (i64 i = 0; i < m; i++) {
        double least = INFINITE;
        Vec way = {INFINITE, 0.0, 0.0};
        for (i64 j = 0; j < n; j++) {
            if (numbers[i] != site_numbers[j]) continue;
            const Vec gap = lattice.wrapped(at(points, i) - at(sites, j));
            if (dot(gap, gap) < least) least = dot(gap, gap), way = gap, nearest[i] = j;
        }
        if (least == INFINITE) return INFINITE;
        way = times(way, matrix);
        longest = std::max(longest, std::sqrt(dot(way, way)));
    }
    return longest;
}

}  // extern "C"
