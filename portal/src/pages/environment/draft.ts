// What a person is about to save, and what follows from it. The control plane
// decides again when it is saved.
import type { PlanSetting, PlanSettings, Tier } from '../../api/types'

export interface Draft {
  servers: boolean
  tier: Tier
  /** Only settings that the person has switched. */
  choices: Record<string, boolean>
}

export const draftOf = (plan: PlanSettings): Draft => ({ servers: plan.servers, tier: plan.tier, choices: {} })

/** A plan that is switched on begins as P2, unless it was only off in this draft. */
export function switchServers(draft: Draft, plan: PlanSettings, on: boolean): Draft {
  return { ...draft, servers: on, tier: on && !plan.servers ? 'P2' : plan.tier }
}

export interface DraftSetting extends PlanSetting {
  /** Why it cannot be switched under the draft. */
  reason: PlanSetting['reason']
}

/** The settings as they would be under the draft. */
export function settingsOf(plan: PlanSettings, draft: Draft): DraftSetting[] {
  return plan.settings.map((setting) => {
    const reason = reasonOf(setting, draft)
    // Under a plan that is off the control plane says "off" of every setting;
    // what a plan begins with is then its default.
    const before = plan.servers && reasonOf(setting, plan) === '' ? setting.enabled : setting.default
    return { ...setting, reason, changeable: reason === '', enabled: reason === '' && (draft.choices[setting.id] ?? before) }
  })
}

function reasonOf(setting: PlanSetting, { servers, tier }: { servers: boolean; tier: Tier }): PlanSetting['reason'] {
  if (!servers) return 'plan_off'
  if (!setting.availableIn.includes(tier)) return 'requires_p2'
  return setting.engine ? '' : 'not_in_this_version'
}

/** What to send: every setting that can be switched, as it is shown. */
export function choicesOf(plan: PlanSettings, draft: Draft): Record<string, boolean> {
  return Object.fromEntries(settingsOf(plan, draft).filter((s) => s.changeable).map((s) => [s.id, s.enabled]))
}

export function isChanged(plan: PlanSettings, draft: Draft): boolean {
  if (plan.servers !== draft.servers || (draft.servers && plan.tier !== draft.tier)) return true
  const shown = settingsOf(plan, draftOf(plan))
  return settingsOf(plan, draft).some((s, i) => s.enabled !== shown[i]!.enabled)
}
