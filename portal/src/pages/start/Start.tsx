import { Button, makeStyles, mergeClasses, MessageBar, MessageBarBody, Spinner, Subtitle2, Text, tokens } from '@fluentui/react-components'
import { CheckmarkRegular } from '@fluentui/react-icons/svg/checkmark'
import { useState, type ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import { createToken, getPlan, listAlerts, putPlan } from '../../api/calls'
import { getSummary, listDevices } from '../../api/devices'
import type { Device, JoinToken } from '../../api/types'
import { useData } from '../../api/use'
import { useMay } from '../../app/session'
import { useFormat, useName, useTitle } from '../../i18n/names'
import { Copyable } from '../../ui/Copy'
import { RouteLink } from '../../ui/links'
import { Coverage } from '../../ui/marks'
import { Page } from '../../ui/Page'
import { Failure, Loading, useErrorText } from '../../ui/states'

const useStyles = makeStyles({
  steps: { listStyleType: 'none', margin: 0, padding: 0, display: 'flex', flexDirection: 'column', maxWidth: '860px', gap: tokens.spacingVerticalM },
  step: {
    display: 'grid', gridTemplateColumns: '32px minmax(0, 1fr)', gap: tokens.spacingHorizontalL, padding: '16px 20px',
    backgroundColor: tokens.colorNeutralBackground1, border: `1px solid ${tokens.colorNeutralStroke2}`, borderRadius: tokens.borderRadiusLarge,
  },
  now: { borderLeft: `3px solid ${tokens.colorCompoundBrandStroke}` },
  later: { color: tokens.colorNeutralForeground3, backgroundColor: tokens.colorNeutralBackground2 },
  mark: { width: '32px', height: '32px', borderRadius: '50%', display: 'grid', placeItems: 'center', fontWeight: tokens.fontWeightSemibold, backgroundColor: tokens.colorNeutralBackground3, color: tokens.colorNeutralForeground2 },
  done: { backgroundColor: tokens.colorStatusSuccessBackground2, color: tokens.colorStatusSuccessForeground2 },
  body: { display: 'flex', flexDirection: 'column', alignItems: 'stretch', gap: tokens.spacingVerticalM, minWidth: 0 },
  title: { margin: 0, lineHeight: '32px' },
  row: { display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: tokens.spacingHorizontalM },
  devices: { listStyleType: 'none', margin: 0, padding: 0, display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalS },
})

const day = 86_400

/** From an empty control plane to the first detection. Each step notices by itself that it is done. */
export default function Start() {
  const { t } = useTranslation()
  const styles = useStyles()
  const title = useTitle()
  const summary = useData('start summary', getSummary, ['device', 'plan', 'alert'])
  const devices = useData('start devices', (signal) => listDevices({ onboarding: 'Onboarded', sort: '-firstSeen', limit: 5 }, signal), ['device', 'plan'])
  const alerts = useData('start alerts', (signal) => listAlerts({ limit: 1 }, signal), ['alert'])
  if (!summary.data || !devices.data || !alerts.data) {
    const error = summary.error ?? devices.error ?? alerts.error
    return <Page title={t('start.title')}>{error ? <Failure error={error} retry={() => { summary.reload(); devices.reload(); alerts.reload() }} /> : <Loading />}</Page>
  }
  const environment = summary.data.environments.find((e) => e.plan !== 'off') ?? summary.data.environments[0]
  const planOn = environment !== undefined && environment.plan !== 'off'
  const joined = devices.data.total > 0
  const covered = (summary.data.devices.coverage.find((c) => c.state === 'protected')?.count ?? 0) > 0
  const alert = alerts.data.items[0]
  const states = [planOn, joined, covered, alert !== undefined]
  // Steps may be done in another order; the first that is not is the next.
  const next = states.indexOf(false)
  const step = (n: number, heading: string, children: ReactNode) => (
    <li key={n} className={mergeClasses(styles.step, n === next && styles.now, next !== -1 && n > next && styles.later)} data-testid={`start-${n + 1}`} data-done={states[n]} aria-current={n === next ? 'step' : undefined}>
      <span className={mergeClasses(styles.mark, states[n] && styles.done)}>{states[n] ? <CheckmarkRegular aria-label={t('start.done')} /> : n + 1}</span>
      <div className={styles.body}>
        <Subtitle2 as="h2" className={styles.title}>{heading}</Subtitle2>
        {children}
      </div>
    </li>
  )
  return (
    <Page title={t('start.title')}>
      <Text>{t('start.intro')}</Text>
      <ol className={styles.steps}>
        {step(0, t('start.plan'), environment && <PlanStep environment={environment} done={planOn} saved={summary.reload} />)}
        {step(1, t('start.join'), environment && <JoinStep environment={environment.id} done={joined} />)}
        {step(2, t('start.protected'), <DevicesStep devices={devices.data.items} waiting={next === 1 || next === 2} />)}
        {step(3, t('start.detect'), alert
          ? <div className={styles.row}><Text>{t('start.detected')}</Text><RouteLink to={`/alerts/${alert.id}`} data-testid="start-alert">{title(alert.title)}</RouteLink></div>
          : <DetectStep waiting={next === 3} device={devices.data.items.find((d) => d.connected)} />)}
      </ol>
      {next === -1 && <MessageBar intent="success" layout="multiline"><MessageBarBody data-testid="start-ready">{t('start.ready')} <RouteLink to="/">{t('start.toHome')}</RouteLink></MessageBarBody></MessageBar>}
    </Page>
  )
}

function PlanStep({ environment, done, saved }: { environment: { id: string; name: string; plan: string }; done: boolean; saved: () => void }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const may = useMay('plans.manage')
  const errorText = useErrorText()
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const turnOn = () => {
    setBusy(true)
    setError(undefined)
    getPlan(environment.id).then((plan) => putPlan(environment.id, { version: plan.version, servers: true, tier: 'P2', settings: {} })).then(saved, setError).finally(() => setBusy(false))
  }
  return (
    <>
      <Text>{done ? t('start.planOn', { name: environment.name, plan: environment.plan }) : t('start.planText', { name: environment.name })}</Text>
      {error !== undefined && <MessageBar intent="error" layout="multiline" role="alert"><MessageBarBody>{errorText(error)}</MessageBarBody></MessageBar>}
      <div className={styles.row}>
        {!done && <Button appearance="primary" disabled={!may} disabledFocusable={busy} onClick={turnOn} data-testid="start-plan">{t('start.turnOn')}</Button>}
        <RouteLink to={`/environments/${environment.id}`}>{t('start.settings')}</RouteLink>
      </div>
    </>
  )
}

function JoinStep({ environment, done }: { environment: string; done: boolean }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const may = useMay('enrolment.manage')
  const errorText = useErrorText()
  const [token, setToken] = useState<JoinToken>()
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const create = () => {
    setBusy(true)
    setError(undefined)
    createToken(environment, { label: t('start.tokenLabel'), expiresInSeconds: day, maxUses: 10 }).then(setToken, setError).finally(() => setBusy(false))
  }
  return (
    <>
      <Text>{t('start.joinText')}</Text>
      {error !== undefined && <MessageBar intent="error" layout="multiline" role="alert"><MessageBarBody>{errorText(error)}</MessageBarBody></MessageBar>}
      {token
        ? (
          <>
            <Copyable text={token.command ?? ''} label={t('token.command')} testid="start-command" />
            <Text size={200}>{t('start.once')}</Text>
          </>
        )
        : <div className={styles.row}><Button appearance={done ? 'secondary' : 'primary'} disabled={!may} disabledFocusable={busy} onClick={create} data-testid="start-token">{t('start.createToken')}</Button></div>}
    </>
  )
}

function DevicesStep({ devices, waiting }: { devices: Device[]; waiting: boolean }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  if (devices.length === 0) return waiting ? <div className={styles.row}><Spinner size="tiny" label={t('start.waitDevice')} data-testid="start-waiting" /></div> : <Text>{t('start.protectedText')}</Text>
  return (
    <>
      <Text>{t('start.protectedText')}</Text>
      <ul className={styles.devices}>
        {devices.map((d) => (
          <li key={d.id} className={styles.row} data-testid="start-device">
            <RouteLink to={`/devices/${d.id}`}>{d.name}</RouteLink>
            {d.coverage && <Coverage value={d.coverage.state} />}
            <Text size={200}>{format.list((d.coverage?.reasons ?? []).map((r) => name('coverageReason', r)))}</Text>
          </li>
        ))}
      </ul>
    </>
  )
}

function DetectStep({ waiting, device }: { waiting: boolean; device: Device | undefined }) {
  const styles = useStyles()
  const { t } = useTranslation()
  return (
    <>
      <Text>{t('start.detectText')}</Text>
      <Copyable text={`curl -ko eicar.com.txt ${window.location.origin}/downloads/eicar.com.txt && cat eicar.com.txt`} label={t('start.detect')} testid="start-test" />
      <Text size={200}>{t('start.detectNote')}</Text>
      {device && <div className={styles.row}><Text>{t('start.orTest')}</Text><RouteLink to={`/devices/${device.id}?tab=tests`} data-testid="start-tests">{t('start.tests', { name: device.name })}</RouteLink></div>}
      {waiting && <div className={styles.row}><Spinner size="tiny" label={t('start.waitAlert')} /></div>}
    </>
  )
}
