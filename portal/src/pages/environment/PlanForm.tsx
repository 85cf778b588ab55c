import { Button, makeStyles, mergeClasses, MessageBar, MessageBarActions, MessageBarBody, MessageBarTitle, Switch, Text, tokens } from '@fluentui/react-components'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { putPlan } from '../../api/calls'
import { ApiError } from '../../api/client'
import type { Environment, PlanSettings } from '../../api/types'
import { useMay } from '../../app/session'
import { useNotify } from '../../app/toast'
import { useFormat, useName } from '../../i18n/names'
import { RouteLink } from '../../ui/links'
import { Moment } from '../../ui/marks'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'
import { useErrorText } from '../../ui/states'
import { ChangePlan } from './ChangePlan'
import { choicesOf, draftOf, isChanged, settingsOf, switchServers, type Draft } from './draft'
import { LeaveGuard } from './LeaveGuard'
import { SettingsList } from './SettingsList'

const useStyles = makeStyles({
  form: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
  name: { fontWeight: tokens.fontWeightSemibold },
  dim: { color: tokens.colorNeutralForeground3 },
  plan: { display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: tokens.spacingHorizontalM },
  bar: {
    position: 'sticky', bottom: 0, display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: tokens.spacingHorizontalM, zIndex: 1,
    padding: '12px 20px', backgroundColor: tokens.colorNeutralBackground1, border: `1px solid ${tokens.colorNeutralStroke2}`, borderRadius: tokens.borderRadiusLarge,
  },
  end: { marginLeft: 'auto' },
})

interface Props {
  environment: Environment
  plan: PlanSettings
  saved: (plan: PlanSettings) => void
  reload: () => void
}

/** The plan of an environment: nothing changes until it is saved. */
export function PlanForm({ environment, plan, saved, reload }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const notify = useNotify()
  const errorText = useErrorText()
  const may = useMay('plans.manage')
  // What the draft began with: a change by somebody else meanwhile must not
  // slip under it, so the newer plan is taken only while nothing is changed.
  const [base, setBase] = useState(plan)
  const [draft, setDraft] = useState<Draft>(() => draftOf(plan))
  const [comparing, setComparing] = useState(false)
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const changed = isChanged(base, draft)
  if (!changed && !busy && base !== plan) {
    setBase(plan)
    setDraft(draftOf(plan))
  }

  const discard = () => {
    setError(undefined)
    setBase(plan)
    setDraft(draftOf(plan))
  }
  const save = () => {
    setBusy(true)
    setError(undefined)
    putPlan(environment.id, { version: base.version, servers: draft.servers, tier: draft.tier, settings: choicesOf(base, draft) }).then(
      (next) => {
        saved(next)
        setBase(next)
        setDraft(draftOf(next))
        notify('success', t('plan.saved'), t('plan.savedText', { name: environment.name }))
      },
      (e: unknown) => {
        setError(e)
        if (e instanceof ApiError && e.kind === 'conflict') reload()
      },
    ).finally(() => setBusy(false))
  }
  const conflict = error instanceof ApiError && error.kind === 'conflict'
  const turnsOff = base.servers && !draft.servers
  return (
    <div className={styles.form}>
      {!may && <MessageBar><MessageBarBody>{t('plan.readOnly')}</MessageBarBody></MessageBar>}
      {error !== undefined && (
        <MessageBar intent="error" layout="multiline" role="alert" data-testid={conflict ? 'plan-conflict' : 'plan-error'}>
          <MessageBarBody>
            <MessageBarTitle>{conflict ? t('plan.conflict') : t('plan.failed')}</MessageBarTitle>
            {conflict ? t('plan.conflictText') : errorText(error)}
          </MessageBarBody>
          {conflict && <MessageBarActions><Button onClick={discard} data-testid="plan-reload">{t('plan.reload')}</Button></MessageBarActions>}
        </MessageBar>
      )}
      <Panel title={t('plan.title')}>
        <PlainTable
          label={t('plan.title')} items={[environment]} rowId={() => 'servers'} rowTestid="plan-row"
          columns={[
            { id: 'workload', header: t('plan.workload'), cell: () => <span className={styles.name}>{t('plan.servers')}</span> },
            {
              id: 'plan', header: t('plan.plan'), cell: () => (draft.servers
                ? (
                  <div className={styles.plan}>
                    <span data-testid="plan-tier">{name('plan', draft.tier)}</span>
                    <Button size="small" disabled={!may} onClick={() => setComparing(true)} data-testid="change-plan">{t('plan.change')}</Button>
                  </div>
                )
                : <span className={styles.dim} data-testid="plan-tier">{name('plan', 'off')}</span>),
            },
            { id: 'devices', header: t('plan.devices'), tight: true, cell: (e) => <RouteLink to={`/devices?environment=${e.id}`}>{format.number(e.devices.total)}</RouteLink> },
            {
              id: 'status', header: t('plan.status'), tight: true, cell: () => (
                <Switch
                  checked={draft.servers} disabled={!may || busy} label={draft.servers ? t('value.on') : t('value.off')}
                  aria-label={t('plan.servers')} data-testid="plan-switch" onChange={(_, d) => setDraft(switchServers(draft, base, d.checked))}
                />
              ),
            },
          ]}
        />
        {turnsOff && <MessageBar intent="warning" layout="multiline"><MessageBarBody>{t('plan.offWarning', { count: environment.devices.total })}</MessageBarBody></MessageBar>}
      </Panel>
      <Panel title={t('plan.settings')}>
        <Text className={styles.dim}>{t('plan.settingsText')}</Text>
        <SettingsList
          settings={settingsOf(base, draft)} disabled={!may || busy}
          choose={(id, on) => setDraft({ ...draft, choices: { ...draft.choices, [id]: on } })}
        />
      </Panel>
      <div className={styles.bar}>
        <Button appearance="primary" disabledFocusable={!may || !changed || busy} onClick={save} data-testid="plan-save">{t('action.save')}</Button>
        <Button disabled={!changed || busy} onClick={discard} data-testid="plan-discard">{t('action.discard')}</Button>
        {changed && <Text>{t('plan.unsaved')}</Text>}
        {base.updatedBy && <Text size={200} className={mergeClasses(styles.dim, styles.end)}>{t('plan.lastSaved', { name: base.updatedBy })} <Moment time={base.updatedAt} /></Text>}
      </div>
      {comparing && (
        <ChangePlan
          tier={draft.tier} close={() => setComparing(false)}
          choose={(tier) => {
            setDraft({ ...draft, tier })
            setComparing(false)
          }}
        />
      )}
      <LeaveGuard when={changed && !busy} />
    </div>
  )
}
