import {
  Button, Dialog, DialogActions, DialogBody, DialogContent, DialogSurface, DialogTitle, makeStyles, mergeClasses, Radio, RadioGroup, Text, tokens,
} from '@fluentui/react-components'
import { CheckmarkRegular } from '@fluentui/react-icons/svg/checkmark'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { listCapabilities } from '../../api/calls'
import type { Capability, Tier } from '../../api/types'
import { useData } from '../../api/use'
import { useName } from '../../i18n/names'
import { PlainTable } from '../../ui/PlainTable'
import { Failure, Loading } from '../../ui/states'

const useStyles = makeStyles({
  surface: { maxWidth: '860px', width: 'calc(100vw - 48px)' },
  content: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
  choices: { display: 'grid', gridTemplateColumns: '1fr 1fr', width: '100%', gap: tokens.spacingHorizontalM },
  choice: { border: `1px solid ${tokens.colorNeutralStroke1}`, borderRadius: tokens.borderRadiusMedium, padding: '4px 8px' },
  chosen: { border: `1px solid ${tokens.colorCompoundBrandStroke}`, outline: `1px solid ${tokens.colorCompoundBrandStroke}` },
  mark: { fontSize: '18px', display: 'inline-flex', color: tokens.colorStatusSuccessForeground1 },
  no: { color: tokens.colorNeutralForeground3 },
  hidden: { position: 'absolute', left: '-10000px' },
})

const tiers: Tier[] = ['P1', 'P2']

interface Props {
  tier: Tier
  choose: (tier: Tier) => void
  close: () => void
}

/** What each plan provides, and the choice between them. */
export function ChangePlan({ tier, choose, close }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const [chosen, setChosen] = useState(tier)
  const { data, error, reload } = useData('capabilities', listCapabilities)
  const provides = (on: boolean) => (on
    ? <span className={styles.mark}><CheckmarkRegular aria-hidden /><span className={styles.hidden}>{t('value.yes')}</span></span>
    : <span className={styles.no} aria-label={t('value.no')} role="img">–</span>)
  return (
    <Dialog open onOpenChange={(_, d) => !d.open && close()}>
      <DialogSurface className={styles.surface} data-testid="plan-dialog">
        <DialogBody>
          <DialogTitle>{t('plan.chooseTitle')}</DialogTitle>
          <DialogContent className={styles.content}>
            <Text>{t('plan.chooseText')}</Text>
            <RadioGroup value={chosen} onChange={(_, d) => setChosen(d.value as Tier)} aria-label={t('plan.chooseTitle')}>
              <div className={styles.choices}>
                {tiers.map((value) => (
                  <div key={value} className={mergeClasses(styles.choice, chosen === value && styles.chosen)}>
                    <Radio value={value} label={name('plan', value)} data-testid={`plan-choose-${value}`} />
                  </div>
                ))}
              </div>
            </RadioGroup>
            {!data ? (error ? <Failure error={error} retry={reload} /> : <Loading />) : (
              <PlainTable<Capability>
                label={t('plan.compare')} items={data.capabilities} rowId={(c) => c.id} rowTestid="capability-row"
                columns={[
                  { id: 'name', header: t('plan.capability'), cell: (c) => (name('capability', c.id) === c.id ? c.name : name('capability', c.id)) },
                  { id: 'P1', header: name('plan', 'P1'), tight: true, middle: true, cell: (c) => provides(c.P1) },
                  { id: 'P2', header: name('plan', 'P2'), tight: true, middle: true, cell: (c) => provides(c.P2) },
                  { id: 'here', header: t('plan.inThisVersion'), tight: true, cell: (c) => (c.inThisVersion ? t('plan.available') : <span className={styles.no}>{t('plan.notYet')}</span>) },
                ]}
              />
            )}
          </DialogContent>
          <DialogActions>
            <Button appearance="primary" onClick={() => choose(chosen)} data-testid="plan-confirm">{t('action.confirm')}</Button>
            <Button onClick={close} data-testid="plan-cancel">{t('action.cancel')}</Button>
          </DialogActions>
        </DialogBody>
      </DialogSurface>
    </Dialog>
  )
}
