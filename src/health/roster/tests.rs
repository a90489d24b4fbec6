//! Who serves when: scenes that an operator would recognise, and a model of the rule in its own words.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::health::State;
use crate::model::BackendId;

const SECOND: Duration = Duration::from_secs(1);

/// A service whose backends a test flips, and its clock.
struct Scene {
    rules: Rules,
    ids: Vec<BackendId>,
    priorities: Vec<u32>,
    health: Vec<HealthView>,
    admin: Vec<AdminView>,
    roster: Roster,
    now: Instant,
    changes: Vec<TierChange>,
}

impl Scene {
    /// Backends `a`, `b`, … of these priorities, all up.
    fn new(priorities: &[u32], rules: Rules) -> Self {
        let name = |at: usize| char::from(b'a' + at as u8).to_string();
        let mut scene = Self {
            rules,
            ids: (0..priorities.len())
                .map(|at| BackendId::new("web", name(at)))
                .collect(),
            priorities: priorities.to_vec(),
            health: vec![HealthView::of(State::Up); priorities.len()],
            admin: vec![AdminView::default(); priorities.len()],
            roster: Roster::default(),
            now: Instant::now(),
            changes: Vec::new(),
        };
        scene.decide();
        scene
    }

    fn decide(&mut self) -> Decision {
        let members: Vec<Member<'_>> = (0..self.ids.len())
            .map(|at| Member {
                id: &self.ids[at],
                weight: 2,
                priority: self.priorities[at],
                enabled: true,
                resolved: true,
                admin: self.admin[at],
                health: self.health[at],
            })
            .collect();
        let decision = self.roster.decide(&self.rules, &members, self.now);
        self.changes.extend(&decision.changes);
        decision
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    /// Backend `name` is down from now on.
    fn down(&mut self, name: &str) -> &mut Self {
        self.set(name, State::Down)
    }

    fn up(&mut self, name: &str) -> &mut Self {
        self.set(name, State::Up)
    }

    fn set(&mut self, name: &str, state: State) -> &mut Self {
        let at = self.at(name);
        self.health[at].state = state;
        self.decide();
        self
    }

    fn at(&self, name: &str) -> usize {
        usize::from(name.as_bytes()[0] - b'a')
    }

    /// The names of those who serve.
    fn serving(&mut self) -> String {
        names(&self.decide().serving)
    }

    fn reserve(&mut self) -> String {
        names(&self.decide().reserve)
    }

    /// The names and the thousandths of those who serve.
    fn portions(&mut self) -> Vec<(String, u16)> {
        let portion = |it: &Candidate| (it.id.name().to_string(), it.portion.thousandths());
        self.decide().serving.iter().map(portion).collect()
    }
}

fn names(candidates: &[Candidate]) -> String {
    candidates.iter().map(|it| &**it.id.name()).collect()
}

fn fail_back(fail_back: FailBack) -> Rules {
    Rules {
        fail_back,
        ..Rules::default()
    }
}

fn min_up(min_up: MinUp) -> Rules {
    Rules {
        min_up,
        ..Rules::default()
    }
}

fn slow_start(seconds: u64) -> Rules {
    Rules {
        slow_start: SECOND * seconds as u32,
        ..Rules::default()
    }
}

#[test]
fn everybody_whose_word_counts_must_let_a_backend_serve() {
    let id = BackendId::new("web", "a");
    let good = Member {
        id: &id,
        weight: 3,
        priority: 0,
        enabled: true,
        resolved: true,
        admin: AdminView::default(),
        health: HealthView::of(State::Up),
    };
    assert!(good.is_eligible());
    let unknown = HealthView::of(State::Unknown);
    assert!(
        Member {
            health: unknown,
            ..good
        }
        .is_eligible()
    );
    let mut wrong = [good; 9];
    wrong[0].health.state = State::Down;
    wrong[1].health.ejected = true;
    wrong[2].enabled = false;
    wrong[3].resolved = false;
    wrong[4].admin.duty = Duty::Drain;
    wrong[5].admin.duty = Duty::Maintenance;
    wrong[6].admin.weight = Percent::new(0);
    wrong[7].health.agent.duty = Duty::Drain;
    wrong[8].health.agent.weight = Percent::new(0);
    for member in wrong {
        assert!(!member.is_eligible(), "{member:?}");
    }
    assert!(wrong[..2].iter().all(Member::is_allowed));
    assert!(!wrong[2..].iter().any(Member::is_allowed));
}

#[test]
fn equal_priorities_are_all_active() {
    let mut scene = Scene::new(&[7, 7, 7], Rules::default());
    assert_eq!(scene.serving(), "abc");
    assert_eq!(scene.down("b").serving(), "ac");
    assert_eq!(scene.up("b").serving(), "abc");
    assert_eq!(scene.changes, []);
}

#[test]
fn a_standby_serves_while_the_active_one_is_down() {
    let mut scene = Scene::new(&[0, 1], Rules::default());
    assert_eq!(scene.serving(), "a");
    assert_eq!(scene.decide().seats, [Seat::Serves, Seat::StandsBy]);
    assert_eq!(scene.decide().eligible, 2);
    assert_eq!(scene.down("a").serving(), "b");
    assert_eq!(scene.up("a").serving(), "a");
    assert_eq!(
        scene.changes,
        [
            TierChange::TakesOver {
                priority: 1,
                up: 0,
                needed: 1
            },
            TierChange::StandsDown {
                priority: 1,
                up: 1,
                why: StandDown::Immediate
            },
        ]
    );
}

#[test]
fn whatever_takes_the_active_one_out_has_the_standby_take_over() {
    let takes_out: [fn(&mut Scene); 4] = [
        |scene| scene.admin[0].duty = Duty::Drain,
        |scene| scene.admin[0].weight = Percent::new(0),
        |scene| scene.health[0].agent.duty = Duty::Maintenance,
        |scene| scene.health[0].ejected = true,
    ];
    for take_out in takes_out {
        let mut scene = Scene::new(&[0, 1], Rules::default());
        take_out(&mut scene);
        assert_eq!(scene.serving(), "b");
    }
}

#[test]
fn tiers_join_one_after_the_other_and_only_when_they_can_serve() {
    let mut scene = Scene::new(&[0, 1, 2], Rules::default());
    assert_eq!(scene.down("b").serving(), "a");
    assert_eq!(scene.down("a").serving(), "c", "b is down as well");
    assert_eq!(scene.up("b").serving(), "b");
    assert_eq!(scene.down("c").down("b").serving(), "");
    assert_eq!(scene.up("a").serving(), "a");
}

#[test]
fn a_tier_joins_while_fewer_than_min_up_are_up() {
    let mut scene = Scene::new(&[0, 0, 0, 1, 1], min_up(MinUp::Count(2)));
    assert_eq!(scene.down("a").serving(), "bc");
    assert_eq!(scene.down("b").serving(), "cde");
    assert_eq!(scene.up("a").serving(), "ac");
}

#[test]
fn min_up_in_percent_is_of_those_in_the_file_and_rounded_up() {
    let mut scene = Scene::new(&[0, 0, 0, 1], min_up(MinUp::Percent(50)));
    assert_eq!(scene.down("a").serving(), "bc");
    assert_eq!(scene.down("b").serving(), "cd");
    assert_eq!(MinUp::Percent(34).of(3), 2);
    assert_eq!(MinUp::Percent(1).of(3), 1);
    assert_eq!(MinUp::Count(5).of(3), 5);
}

#[test]
fn a_later_tier_fills_up_what_the_next_one_lacks() {
    let mut scene = Scene::new(&[0, 0, 1, 2], min_up(MinUp::Count(2)));
    assert_eq!(scene.down("a").serving(), "bc");
    assert_eq!(scene.down("b").serving(), "cd");
    assert_eq!(scene.up("a").serving(), "ac");
}

#[test]
fn a_primary_that_flaps_is_held_back_until_it_was_up_for_long_enough() {
    let mut scene = Scene::new(&[0, 1], fail_back(FailBack::After(30 * SECOND)));
    scene.down("a");
    for _ in 0..5 {
        assert_eq!(scene.after(SECOND).up("a").serving(), "b");
        assert_eq!(scene.decide().seats[0], Seat::HeldBack);
        assert_eq!(scene.after(29 * SECOND).serving(), "b");
        assert_eq!(scene.down("a").serving(), "b");
    }
    let back = scene.after(SECOND).up("a").decide();
    assert_eq!(back.again, Some(scene.now + 30 * SECOND));
    assert_eq!(scene.after(30 * SECOND).serving(), "a");
    assert_eq!(scene.decide().again, None);
    let took_over = |it: &&TierChange| matches!(it, TierChange::TakesOver { .. });
    assert_eq!(scene.changes.iter().filter(took_over).count(), 1);
    assert_eq!(
        scene.changes.last(),
        Some(&TierChange::StandsDown {
            priority: 1,
            up: 1,
            why: StandDown::After(30 * SECOND)
        })
    );
}

#[test]
fn with_manual_fail_back_only_an_operator_moves_traffic_back() {
    let mut scene = Scene::new(&[0, 1], fail_back(FailBack::Manual));
    scene.down("a").up("a");
    assert_eq!(scene.after(1_000 * SECOND).serving(), "b");
    scene.roster.fail_back();
    assert_eq!(scene.serving(), "a");
    assert_eq!(
        scene.changes.last(),
        Some(&TierChange::StandsDown {
            priority: 1,
            up: 1,
            why: StandDown::Asked
        })
    );
    assert_eq!(scene.down("a").serving(), "b", "asked once is not for ever");
    assert_eq!(scene.up("a").serving(), "b");
}

#[test]
fn to_ask_for_a_fail_back_that_is_not_possible_leaves_nothing_behind() {
    let mut scene = Scene::new(&[0, 1], fail_back(FailBack::Manual));
    scene.down("a");
    scene.roster.fail_back();
    assert_eq!(scene.serving(), "b");
    assert_eq!(scene.up("a").serving(), "b");
}

#[test]
fn a_standby_that_fails_in_its_turn_gives_way_at_once() {
    for rule in [FailBack::Manual, FailBack::After(60 * SECOND)] {
        let mut scene = Scene::new(&[0, 1], fail_back(rule));
        scene.down("a").up("a");
        assert_eq!(scene.reserve(), "a", "nobody waits for the decision");
        assert_eq!(scene.down("b").serving(), "a");
        assert_eq!(scene.up("b").serving(), "a");
    }
}

#[test]
fn who_served_beside_a_standby_goes_on_while_who_returns_is_held_back() {
    let rules = Rules {
        min_up: MinUp::Count(2),
        fail_back: FailBack::After(30 * SECOND),
        ..Rules::default()
    };
    let mut scene = Scene::new(&[0, 0, 0, 1], rules);
    assert_eq!(scene.down("a").down("b").serving(), "cd");
    assert_eq!(scene.up("a").serving(), "cd");
    assert_eq!(scene.after(10 * SECOND).up("b").serving(), "cd");
    assert_eq!(scene.down("c").serving(), "d", "a and b would be enough");
    assert_eq!(scene.after(20 * SECOND).serving(), "ab");
}

#[test]
fn who_comes_back_while_there_are_still_too_few_serves_at_once() {
    let rules = Rules {
        min_up: MinUp::Count(3),
        fail_back: FailBack::Manual,
        ..Rules::default()
    };
    let mut scene = Scene::new(&[0, 0, 0, 1], rules);
    assert_eq!(scene.down("a").down("b").serving(), "cd");
    assert_eq!(scene.up("a").serving(), "acd");
}

#[test]
fn nobody_eligible_is_an_empty_roster_unless_all_are_used() {
    let mut scene = Scene::new(&[0, 1], Rules::default());
    let decision = scene.down("a").down("b").decide();
    assert_eq!((decision.serving, decision.eligible), (vec![], 0));
    scene.rules.when_all_down = WhenAllDown::UseAll;
    let decision = scene.decide();
    assert_eq!(names(&decision.serving), "ab");
    assert_eq!((decision.regardless, decision.eligible), (true, 0));
    scene.admin[1].duty = Duty::Drain;
    assert_eq!(scene.serving(), "a", "an operator's word holds");
    let decision = scene.up("a").decide();
    assert_eq!(
        (decision.regardless, decision.reserve_regardless),
        (false, true)
    );
}

#[test]
fn the_reserve_is_whoever_would_be_next() {
    let mut scene = Scene::new(&[0, 1, 2], Rules::default());
    assert_eq!(scene.reserve(), "b");
    assert_eq!(scene.down("b").reserve(), "c");
    assert_eq!(scene.down("c").reserve(), "");
    scene.rules.when_all_down = WhenAllDown::UseAll;
    assert_eq!(scene.reserve(), "abc");
}

#[test]
fn a_backend_that_comes_back_starts_with_a_tenth() {
    let mut scene = Scene::new(&[0, 0, 0], slow_start(30));
    assert!(scene.portions().iter().all(|(_, portion)| *portion == 1000));
    scene.down("b").after(10 * SECOND).up("b");
    let portion = |scene: &mut Scene| scene.portions()[1].1;
    assert_eq!(portion(&mut scene), 100);
    assert_eq!(portion(scene.after(10 * SECOND)), 400);
    assert_eq!(portion(scene.after(10 * SECOND)), 700);
    let before = scene.decide();
    assert!(before.again.is_some_and(|again| again > scene.now));
    assert_eq!(portion(scene.after(10 * SECOND)), 1000);
    assert_eq!(scene.decide().again, None);
}

#[test]
fn a_ramp_is_asked_about_in_a_bounded_number_of_steps() {
    let mut scene = Scene::new(&[0, 0, 0, 0], slow_start(3600));
    scene.down("a").down("b").up("a");
    scene.after(7 * SECOND).up("b");
    let mut steps = 0;
    while let Some(again) = scene.decide().again {
        assert!(again >= scene.now + SHORTEST);
        scene.now = again;
        steps += 1;
    }
    assert!(steps <= 20, "{steps}");
}

const SHORTEST: Duration = Duration::from_millis(100);

#[test]
fn nobody_warms_up_at_the_start_and_who_is_first_found_dead_does() {
    let mut scene = Scene::new(&[0, 0], slow_start(30));
    scene.set("a", State::Unknown).set("a", State::Up);
    assert_eq!(scene.portions()[0].1, 1000);
    scene.down("a").up("a");
    assert_eq!(scene.portions()[0].1, 100);
}

#[test]
fn all_that_come_back_together_share_as_if_none_had() {
    let mut scene = Scene::new(&[0, 0], slow_start(30));
    scene.down("a").down("b").up("a").up("b");
    assert_eq!(scene.portions(), [("a".into(), 1000), ("b".into(), 1000)]);
}

#[test]
fn a_standby_takes_over_at_full_strength() {
    let mut scene = Scene::new(
        &[0, 0, 1],
        Rules {
            min_up: MinUp::Count(2),
            ..slow_start(30)
        },
    );
    scene.down("a");
    assert_eq!(scene.portions(), [("b".into(), 1000), ("c".into(), 1000)]);
}

#[test]
fn who_was_held_back_is_cold_when_it_is_let_in() {
    let rules = Rules {
        min_up: MinUp::Count(2),
        fail_back: FailBack::After(60 * SECOND),
        ..slow_start(30)
    };
    let mut scene = Scene::new(&[0, 0, 1], rules);
    scene.down("a").up("a");
    for _ in 0..60 {
        scene.after(SECOND).decide();
    }
    assert_eq!(scene.portions(), [("a".into(), 100), ("b".into(), 1000)]);
}

#[test]
fn a_backend_that_is_new_to_a_running_service_warms_up() {
    let mut scene = Scene::new(&[0, 0], slow_start(30));
    scene.ids.push(BackendId::new("web", "c"));
    scene.priorities.push(0);
    scene.health.push(HealthView::of(State::Unknown));
    scene.admin.push(AdminView::default());
    assert_eq!(scene.portions()[2], ("c".into(), 100));
}

#[test]
fn the_words_of_operator_and_agent_multiply() {
    let mut scene = Scene::new(&[0, 0, 0], Rules::default());
    scene.admin[0].weight = Percent::new(50);
    scene.health[0].agent.weight = Percent::new(50);
    scene.health[1].agent.weight = Percent::new(80);
    let portions: Vec<u16> = scene.portions().iter().map(|it| it.1).collect();
    assert_eq!(portions, [250, 800, 1000]);
    scene.admin[2].weight = Percent::new(200);
    let portions: Vec<u16> = scene.portions().iter().map(|it| it.1).collect();
    assert_eq!(portions, [125, 400, 1000], "relative to the greatest");
}

/// What may happen to a service.
#[derive(Clone, Debug)]
enum Step {
    Flip(usize),
    Pass(u64),
    Ask,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_usize..8).prop_map(Step::Flip),
        2 => (0_u64..40).prop_map(Step::Pass),
        1 => Just(Step::Ask),
    ];
    prop::collection::vec(step, 0..60)
}

fn any_rules() -> impl Strategy<Value = Rules> {
    (
        prop_oneof![
            (1_u32..4).prop_map(MinUp::Count),
            (1_u8..=100).prop_map(MinUp::Percent)
        ],
        prop_oneof![
            Just(FailBack::Immediate),
            Just(FailBack::Manual),
            (1_u32..60).prop_map(|seconds| FailBack::After(SECOND * seconds))
        ],
        0_u32..60,
    )
        .prop_map(|(min_up, fail_back, seconds)| Rules {
            min_up,
            fail_back,
            slow_start: SECOND * seconds,
            when_all_down: WhenAllDown::Refuse,
        })
}

/// The tiers that have to serve for enough to be up, in the words of the reference: the first, and the
/// next while fewer than `min_up` of all before it are up.
fn needed_tiers(rules: &Rules, priorities: &[u32], up: &[bool]) -> BTreeSet<u32> {
    let all: BTreeSet<u32> = priorities.iter().copied().collect();
    let mut needed = BTreeSet::new();
    for tier in all {
        let before = |at: &usize| priorities[*at] < tier;
        let configured = (0..priorities.len()).filter(before).count();
        let up = (0..priorities.len())
            .filter(before)
            .filter(|&at| up[at])
            .count();
        if !needed.is_empty() && up >= rules.min_up.of(configured) {
            break;
        }
        needed.insert(tier);
    }
    needed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_enough_serve_and_nobody_who_may_not(
        priorities in prop::collection::vec(0_u32..4, 1..8),
        rules in any_rules(),
        steps in steps(),
    ) {
        let mut scene = Scene::new(&priorities, rules);
        for step in steps {
            match step {
                Step::Flip(at) => {
                    let at = at % priorities.len();
                    let state = &mut scene.health[at].state;
                    *state = if *state == State::Up { State::Down } else { State::Up };
                }
                Step::Pass(seconds) => scene.now += SECOND * seconds as u32,
                Step::Ask => scene.roster.fail_back(),
            }
            let before = scene.changes.len();
            let decision = scene.decide();
            let up: Vec<bool> = scene.health.iter().map(|it| it.state == State::Up).collect();
            let serves = |at: usize| decision.seats[at] == Seat::Serves;

            // Nobody who is down serves, and if anybody is up, somebody serves.
            prop_assert!((0..up.len()).all(|at| up[at] || decision.seats[at] == Seat::Out));
            prop_assert_eq!(decision.eligible, up.iter().filter(|up| **up).count());
            prop_assert_eq!(decision.serving.is_empty(), decision.eligible == 0);

            // Who serves is who the seats say, in order, at a portion, one of them the full one.
            let serving: String = (0..up.len())
                .filter(|&at| serves(at))
                .map(|at| &**scene.ids[at].name())
                .collect();
            prop_assert_eq!(names(&decision.serving), serving);
            let greatest = decision.serving.iter().map(|it| it.portion).max();
            prop_assert!(greatest.is_none_or(|greatest| greatest == Portion::FULL));

            // Who is needed serves, unless a tier behind it stands in that may stay.
            let needed = needed_tiers(&rules, &priorities, &up);
            let stays = decision.seats.contains(&Seat::HeldBack);
            for at in (0..up.len()).filter(|&at| up[at] && needed.contains(&priorities[at])) {
                prop_assert!(serves(at) || stays, "{at} in {decision:?}");
            }
            // At once means that nobody else serves, and nobody is held back.
            if rules.fail_back == FailBack::Immediate {
                prop_assert!(!stays);
                prop_assert!((0..up.len()).all(|at| !serves(at) || needed.contains(&priorities[at])));
            }
            // When all who serve go down, the reserve is not empty if anybody else is up.
            prop_assert_eq!(
                decision.reserve.is_empty(),
                decision.serving.len() == decision.eligible
            );
            // Deciding again without news changes nothing, and takes no wake that has passed.
            let again = scene.decide();
            prop_assert!(again.lays_out_as(&decision), "{again:?} after {decision:?}");
            prop_assert!(decision.again.is_none_or(|at| at > scene.now));
            prop_assert_eq!(scene.changes.len(), before + decision.changes.len());
        }
    }

    #[test]
    fn a_tier_that_may_stay_for_a_time_stands_down_when_it_is_over(
        priorities in prop::collection::vec(0_u32..3, 2..8),
        rules in any_rules(),
        steps in steps(),
    ) {
        let mut scene = Scene::new(&priorities, rules);
        for step in steps {
            if let Step::Flip(at) = step {
                let state = &mut scene.health[at % priorities.len()].state;
                *state = if *state == State::Up { State::Down } else { State::Up };
            }
            scene.decide();
        }
        scene.health.iter_mut().for_each(|it| it.state = State::Up);
        // Each wake may let one tier go, and ramps need their steps.
        for _ in 0..100 {
            match scene.decide().again {
                Some(again) => scene.now = again,
                None => break,
            }
        }
        let decision = scene.decide();
        prop_assert_eq!(decision.again, None);
        if rules.fail_back != FailBack::Manual {
            let up = vec![true; priorities.len()];
            let needed = needed_tiers(&rules, &priorities, &up);
            for (at, priority) in priorities.iter().enumerate() {
                let serves = decision.seats[at] == Seat::Serves;
                prop_assert_eq!(serves, needed.contains(priority));
            }
            prop_assert!(decision.serving.iter().all(|it| it.portion == Portion::FULL));
        }
    }
}

#[test]
fn names_that_leave_are_forgotten() {
    let mut scene = Scene::new(&[0, 0], slow_start(30));
    scene.ids[1] = BackendId::new("web", "z");
    scene.decide();
    let known = scene.roster.past.as_deref().unwrap();
    let names: Vec<&str> = known.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["a", "z"]);
}
